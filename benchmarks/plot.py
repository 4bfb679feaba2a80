"""Draws growth from JSON on stdin: `python -m benchmarks.plot PICTURE.svg`. Needs matplotlib."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

LINES = {
    "online worker": ("#0b7285", "-"),
    "online worker, before": ("#0b7285", ":"),
    "offline worker": ("#e8590c", "-"),
    "offline worker, before": ("#e8590c", ":"),
    "Bytewax": ("#868e96", "-"),
    "Quix Streams": ("#868e96", "--"),
}


def main() -> None:
    points = json.load(sys.stdin)
    mpl.rcParams.update({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "growth"})
    figure, (rates, memory) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axes, name, title, scale in (
        (rates, "rate", "ticks a second", "log"),
        (memory, "memory", "MB at the most", "linear"),
    ):
        if unknown := {point["subject"] for point in points} - LINES.keys():
            sys.exit(f"there is no line for {', '.join(unknown)}")
        for subject, (colour, line) in LINES.items():
            found = defaultdict(list)
            for point in points:
                if point["subject"] == subject:
                    found[point["entities"]].append(point[name])
            if not found:
                continue
            entities = sorted(found)
            values = [statistics.median(found[number]) for number in entities]
            axes.plot(entities, values, marker="o", color=colour, linestyle=line, label=subject)
        axes.set(xscale="log", yscale=scale, xlabel="entities", title=title)
        if scale == "linear":
            axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    handles, labels = rates.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False)
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
