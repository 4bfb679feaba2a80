"""Draws growth from JSON on stdin: `python -m benchmarks.plot PICTURE.svg`. Needs matplotlib."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

COLOURS = {"online": "#0b7285", "offline": "#e8590c"}


def main() -> None:
    points = json.load(sys.stdin)
    mpl.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "growth"})
    figure, (rates, memory) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axes, name, title, scale in (
        (rates, "rate", "ticks a second", "log"),
        (memory, "memory", "worker, MB at the most", "linear"),
    ):
        for sink, colour in COLOURS.items():
            found = defaultdict(list)
            for point in points:
                if point["sink"] == sink:
                    found[point["entities"]].append(point[name])
            entities = sorted(found)
            values = [statistics.median(found[number]) for number in entities]
            axes.plot(entities, values, marker="o", color=colour, label=f"{sink} worker")
        axes.set(xscale="log", yscale=scale, xlabel="entities", title=title)
        if scale == "linear":
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    rates.legend(frameon=False)
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
