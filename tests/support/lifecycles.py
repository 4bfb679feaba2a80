"""A registry of the shipped features in which a second version of a mean is recorded."""

from __future__ import annotations

from registry.definitions import Catalog
from registry.lifecycle.registry import Registry

SMA = "price_sma_5"
OLD, NEW = f"{SMA}@1.0.0", f"{SMA}@2.0.0"
NEWER = {"expression": "mean(price, 6)"}
MOMENTUM = """
[[set]]
name = "momentum"
version = "1"
features = ["price_sma_5", "price_sma_20@1.0.0"]
"""


def with_new_version(registry: Registry) -> Catalog:
    """A second version of the mean stands by."""
    registry.create_feature_version(SMA, "2.0.0", NEWER, "1.0.0")
    return registry.catalog()
