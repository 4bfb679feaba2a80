"""Experiments on record: how they start and end, and what they allow meanwhile."""

from __future__ import annotations

import pytest

from registry.definitions import Arm, Experiment
from registry.errors import (
    DefinitionError,
    NotAllowed,
    UnknownVersion,
)
from registry.lifecycle.registry import Registry
from tests.support.lifecycles import NEW, SMA, with_new_version


def of_arms(*arms: tuple[str, str]) -> Experiment:
    return Experiment("sma", SMA, tuple(Arm(variant, version, 1) for variant, version in arms))


def two_arms(*weights: int, name: str = "sma") -> Experiment:
    arms = (Arm("control", "1.0.0", weights[0]), Arm("longer", "2.0.0", weights[1]))
    return Experiment(name, SMA, arms)


def test_an_experiment_and_what_it_allows_meanwhile(registry: Registry) -> None:
    with_new_version(registry)
    registry.start_experiment(two_arms(50, 50))
    for change in (
        lambda: registry.activate(NEW),
        lambda: registry.roll_back(SMA),
        lambda: registry.deprecate(NEW),
        lambda: registry.start_experiment(two_arms(50, 50, name="other")),
    ):
        with pytest.raises(NotAllowed, match="experiment sma runs with price_sma_5"):
            change()
    registry.start_experiment(two_arms(60, 40))
    other_arms = of_arms(("a", "1.0.0"), ("b", "2.0.0"))
    with pytest.raises(NotAllowed, match="only their weights can change"):
        registry.start_experiment(other_arms)
    assert registry.catalog().experiments[SMA] == two_arms(60, 40)
    registry.stop_experiment("sma", "longer", note="p < 0.01")
    known = registry.catalog()
    assert (known.experiments, known.active[SMA]) == ({}, "2.0.0")
    for again in (
        lambda: registry.stop_experiment("sma"),
        lambda: registry.start_experiment(two_arms(1, 1)),
    ):
        with pytest.raises(NotAllowed):
            again()
    (over,) = registry.experiments()
    assert (over.winner, over.stopped_by) == ("longer", "bob")
    said = [(line.action, line.note) for line in registry.audit(SMA)][:4]
    assert [action for action, _ in said][::-1] == [
        "start experiment",
        "change weights",
        "stop experiment",
        "activate",
    ]
    assert registry.roll_back(SMA).active[SMA] == "1.0.0"


@pytest.mark.parametrize(
    ("experiment", "what"),
    [
        (of_arms(("a", "1.0.0")), "needs 2 to 10 arms"),
        (
            Experiment("sma", SMA, (Arm("a", "1.0.0", 1), Arm("a", "2.0.0", 1))),
            "different variants",
        ),
        (
            Experiment("sma", SMA, (Arm("a", "1.0.0", 1), Arm("b", "1.0.0", 1))),
            "different versions",
        ),
        (two_arms(0, 1), "must be a whole number, 1 to"),
        (two_arms(1, 1, name="S M A"), "cannot be a name"),
        (Experiment("vol", "volatility", two_arms(1, 1).arms), "is an alias"),
        (Experiment("sma", "nothing", two_arms(1, 1).arms), "there is no feature 'nothing'"),
        (of_arms(("a", "1.0.0"), ("b", "9.0.0")), "there is no"),
    ],
)
def test_an_experiment_that_cannot_be(
    registry: Registry, experiment: Experiment, what: str
) -> None:
    before = with_new_version(registry)
    with pytest.raises((DefinitionError, UnknownVersion), match=what):
        registry.start_experiment(experiment)
    assert registry.catalog() == before
