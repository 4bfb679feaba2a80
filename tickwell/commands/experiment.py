"""`tickwell experiment start`, `status` and `stop`"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tickwell.commands.features import Json, Note, WithoutHistory, opened, print_json
from tickwell.errors import TickwellError
from tickwell.tables import show

if TYPE_CHECKING:
    from registry.definitions import Arm
    from registry.lifecycle.experiments import RecordedExperiment

experiment = typer.Typer(
    name="experiment",
    help="A/B: let a feature's name mean one version for some who ask, and another for others.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ARM = re.compile(r"([^=:]+)=([^=:]+):([0-9]{1,7})")

Name = Annotated[str, typer.Argument(help="The experiment's name.")]


class Subject(StrEnum):
    """What has an arm."""

    ENTITY = "entity"
    CONSUMER = "consumer"


@experiment.command()
def start(
    name: Name,
    feature: Annotated[str, typer.Option(help="The feature, as price_sma_5.")],
    arm: Annotated[
        list[str],
        typer.Option(help="VARIANT=VERSION:WEIGHT, as control=1.0.0:90; once for each arm."),
    ],
    by: Annotated[
        Subject, typer.Option(help="What has an arm: each entity, or each consumer.")
    ] = Subject.ENTITY,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Start an experiment, or give the arms of one that runs other weights."""
    arms = [_arm(text) for text in arm]
    with opened() as (_, registry):
        from registry.definitions import Experiment

        started = Experiment(name, feature, tuple(arms), by.value)
        registry.start_experiment(started, note)
    if as_json:
        print_json(started)
        return
    shares = ", ".join(
        f"{one.variant} is {feature}@{one.version} for {share:.1%}"
        for one, share in zip(arms, _shares(arms), strict=True)
    )
    typer.echo(f"{name} runs: {shares} of the {'entities' if by == 'entity' else 'consumers'}")


@experiment.command()
def status(as_json: Json = False) -> None:
    """Show the experiments, those that run and those that are over."""
    with opened() as (_, registry):
        found = registry.experiments()
    if as_json:
        print_json(found)
        return
    show(
        ("experiment", "feature", "by", "arms", "state"),
        (
            (
                one.experiment.name,
                one.experiment.feature,
                one.experiment.by,
                ", ".join(
                    f"{arm.variant}={arm.version} {share:.1%}"
                    for arm, share in zip(
                        one.experiment.arms, _shares(one.experiment.arms), strict=True
                    )
                ),
                _state(one),
            )
            for one in found
        ),
    )


@experiment.command()
def stop(
    name: Name,
    winner: Annotated[
        str | None, typer.Option(help="The variant whose version the name means from now on.")
    ] = None,
    without_history: WithoutHistory = False,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Stop an experiment: the feature's name means one version again."""
    with opened() as (_, registry):
        known = registry.stop_experiment(name, winner, note, without_history)
        (over,) = [one.experiment for one in registry.experiments() if one.experiment.name == name]
    version = known.active[over.feature]
    if as_json:
        print_json({"experiment": name, "feature": over.feature, "version": version})
    else:
        typer.echo(f"{name} is over: {over.feature} means {version}")


def _arm(text: str) -> Arm:
    from registry.definitions import Arm

    match = ARM.fullmatch(text)
    if match is None:
        raise TickwellError(f"--arm {text}: must be VARIANT=VERSION:WEIGHT, as control=1.0.0:90")
    return Arm(match[1], match[2], int(match[3]))


def _shares(arms: list[Arm] | tuple[Arm, ...]) -> list[float]:
    total = sum(arm.weight for arm in arms) or 1
    return [arm.weight / total for arm in arms]


def _state(found: RecordedExperiment) -> str:
    if found.stopped_at is None:
        return f"runs since {found.started_at:%Y-%m-%d %H:%M} (by {found.started_by})"
    winner = "no winner" if found.winner is None else f"for {found.winner}"
    return f"stopped {found.stopped_at:%Y-%m-%d %H:%M}, {winner} (by {found.stopped_by})"
