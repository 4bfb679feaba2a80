"""A PNG of a run: how long answers took, and where the values came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tickwell.bench.figures import TARGET_P99_SECONDS, Figures, Run, head
from tickwell.bench.histogram import bounds
from tickwell.bench.tally import TIERS, Seen
from tickwell.errors import TickwellError

COLOURS = {"hot": "#e8590c", "warm": "#0b7285", "cold": "#868e96"}
DETAIL = 1e-5
"""Share of the slowest answers up to which the curve is drawn."""


def check_drawing() -> None:
    """Raises `TickwellError` where matplotlib, which draws, is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise TickwellError(
            "--png needs matplotlib, which is not installed: pip install 'tickwell[bench]'"
        ) from None


def draw(path: Path, run: Run, seen: Seen, found: Figures) -> None:
    """Draw the picture. Raises OSError where it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(head(run), fontsize=7)
    times, tiers = figure.subplots(1, 2, width_ratios=(2, 1))
    _draw_times(times, seen, found)
    _draw_tiers(tiers, found)
    for axes in (times, tiers):
        axes.grid(alpha=0.3)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, format="png", dpi=150)


def _draw_times(axes: Any, seen: Seen, found: Figures) -> None:
    """The share of answers that took longer than a time, both on scales of powers of ten."""
    total = seen.counts.sum()
    if total:
        slower = 1 - np.cumsum(seen.counts) / total
        drawn = (slower < 1) & (slower > DETAIL)
        axes.plot(bounds()[drawn] * 1000, slower[drawn] * 100, color=COLOURS["warm"])
    axes.axvline(TARGET_P99_SECONDS * 1000, color="#868e96", linestyle=":", label="target of p99")
    if found.p99 is not None:
        axes.plot([found.p99 * 1000], [1], "o", color=COLOURS["hot"], label="p99")
    axes.set(xscale="log", yscale="log", xlabel="ms", title="answers that took longer, %")
    axes.legend(frameon=False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_tiers(axes: Any, found: Figures) -> None:
    names = [tier for tier in TIERS if tier in found.tiers]
    shares = [found.tiers[tier] * 100 for tier in names]
    axes.bar(names, shares, color=[COLOURS[tier] for tier in names])
    if found.ideal_hits is not None:
        ideal = found.ideal_hits * 100
        axes.axhline(ideal, color=COLOURS["hot"], linestyle=":", label=f"ideal hits, {ideal:.1f} %")
        axes.legend(frameon=False)
    axes.set(ylim=(0, 105), title=f"values by tier, % ({found.requests_a_second:,.0f} requests/s)")
