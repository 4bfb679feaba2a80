"""A PNG of a comparison: of each feature the share of values in each bin, in training and now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving.history.drift import FeatureDrift
from tickwell.bench.picture import check_drawing

__all__ = ["check_drawing", "draw"]

MOST_DRAWN = 24
"""Features; those that have drifted come first."""

COLUMNS = 3
TRAINING, NOW = "#868e96", "#e8590c"


def draw(path: Path, name: str, found: Mapping[str, FeatureDrift]) -> None:
    """Draw the comparison with the training set `name`. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = sorted(found.items(), key=lambda one: not one[1].has_drifted)[:MOST_DRAWN]
    lines = -(-len(drawn) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"values now and in {name}", fontsize=9)
    panels = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axes, (feature, one) in zip(panels, drawn, strict=False):
        _draw_feature(axes, feature, one)
    for axes in panels[len(drawn) :]:
        axes.set_visible(False)
    panels[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, format="png", dpi=120)


def _draw_feature(axes: Any, name: str, one: FeatureDrift) -> None:
    places = np.arange(len(one.training_counts))
    for offset, counts, colour, label in (
        (-0.2, one.training_counts, TRAINING, f"training, {one.training:,} values"),
        (0.2, one.now_counts, NOW, f"now, {one.now:,} values"),
    ):
        shares = counts / max(1, counts.sum()) * 100
        axes.bar(places + offset, shares, width=0.4, color=colour, label=label)
    index = "" if one.index is None else f", index {one.index:.3f}"
    axes.set_title(f"{name}: {one.verdict.value}{index}", fontsize=8)
    axes.set_xticks(places, _names(one), rotation=60, fontsize=6)
    axes.tick_params(axis="y", labelsize=6)
    axes.set_ylabel("% of values", fontsize=6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _names(one: FeatureDrift) -> list[str]:
    bounds = [f"{bound:.4g}" for bound in one.bins.bounds]
    between = [f"to {bounds[0]}", *(f"from {bound}" for bound in bounds)] if bounds else ["others"]
    return [*(f"{value:.4g}" for value in one.bins.repeated), *between]
