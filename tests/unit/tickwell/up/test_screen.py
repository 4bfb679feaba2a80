"""The live view holds what matters in 80 by 24, whatever it has to show, and more where it can."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pipelines.ticks.rejection_reasons import REASONS
from registry.formats.status import Status, has_value
from tickwell.client.health import SinkHealth
from tickwell.demo import PORTFOLIOS, SYMBOLS
from tickwell.up.screen import BODY, FEATURES, POSITION, Answers, screen
from tickwell.up.state import ProcessView

NAMES = (
    *("postgres", "redis-warm", "redis-hot", "kafka"),
    *("server", "worker-online", "worker-offline", "demo"),
)
URL = "http://127.0.0.1:65535"
ADDRESSED = len(NAMES) - 3


def processes(state: str = "running", restarts: int = 0) -> list[ProcessView]:
    return [
        ProcessView(
            name, 4_194_303 - i, "127.0.0.1:65535" if i < ADDRESSED else "", state, restarts
        )
        for i, name in enumerate(NAMES)
    ]


def answer(entity: dict[str, str], names: list[str], status: str, value: float) -> dict[str, Any]:
    feature = {
        "value": value if has_value(Status(status)) else None,
        "status": status,
        "age_seconds": None if status in ("missing", "unavailable") else 86_399.0,
    }
    return {"entity": entity, "features": dict.fromkeys(names, feature)}


def answers(status: str, price: float, rejected: dict[str, int], state: str) -> Answers:
    return Answers(
        prices=[answer({"symbol": name}, FEATURES, status, price) for name in SYMBOLS],
        exposures=[
            answer({"portfolio": name}, ["gross", "net"], status, price * 800)
            for name in PORTFOLIOS
        ],
        positions=[
            answer({"portfolio": portfolio, "symbol": symbol}, [POSITION], status, -quantity)
            for portfolio, held in PORTFOLIOS.items()
            for symbol, quantity in held.items()
        ],
        workers=[SinkHealth(sink, state, 999_999, rejected) for sink in ("online", "offline")],
    )


def drawn(width: int, height: int, said: Answers | str, seen: list[ProcessView]) -> list[str]:
    console = Console(width=width, height=height, file=StringIO(), record=True)
    console.print(screen(console, URL, said, seen), end="")
    lines = console.export_text().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert all(len(line.rstrip()) <= width for line in lines)
    assert "…" not in "".join(lines)
    at = next(i for i, line in enumerate(lines) if line.startswith("curl "))
    assert lines[at].rstrip() == f"curl -s {URL}/features/online \\"
    assert lines[at + 1].rstrip() == f"  -d '{BODY}'"
    return lines


MANY = {reason: 9_999_999 - place for place, reason in enumerate(REASONS)}


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize(
    ("price", "rejected", "said", "state"),
    [
        (189.23, {}, "running", "running"),
        (0.000001, {"late": 1, "malformed": 12}, "starting", "starting"),
        (-9_999.99, MANY, "retrying", "restarting"),
        (99_999.99, dict(list(MANY.items())[:4]), "running", "running"),
    ],
)
def test_nothing_is_cut_in_80_by_24(
    status: Status, price: float, rejected: dict[str, int], said: str, state: str
) -> None:
    lines = drawn(80, 24, answers(status, price, rejected, said), processes(state))
    shown = " ".join(" ".join(lines).split())
    for name in (*SYMBOLS, *PORTFOLIOS, *NAMES, "Ctrl-C"):
        assert name in shown
    for portfolio, held in PORTFOLIOS.items():
        for symbol, quantity in held.items():
            value = f"{-quantity:g}" if has_value(status) else "—"
            assert f"{symbol} {value}" in shown, portfolio
    assert shown.count(" 999999 ") == 2  # the lag
    most = sorted(rejected.items(), key=lambda item: -item[1])
    told = [f"{count} {reason}" in shown for reason, count in most]
    assert all(told) or (all(told[:3]) and "other reasons" in shown)


@pytest.mark.parametrize("why", ["Redis: refused", "Postgres: " + "could not connect " * 40])
@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_what_a_worker_waits_for_is_shown(size: tuple[int, int], why: str) -> None:
    said = answers("unavailable", 1, MANY, "retrying")
    waiting = [replace(worker, lag=None, waits_for=why) for worker in said.workers]
    lines = drawn(*size, replace(said, workers=waiting), processes())
    shown = " ".join(" ".join(lines).split())
    assert shown.count(f"retrying — waits for {why[:20]}") == 2
    assert ("(tickwell status)" in shown) is (len(why) > 100)


def test_a_larger_terminal_shows_pids_and_every_reason() -> None:
    rejected = dict.fromkeys(REASONS, 12)
    lines = drawn(160, 50, answers("warming", 189.23, rejected, "running"), processes())
    shown = "\n".join(lines)
    assert all(str(process.pid) in shown for process in processes())
    assert all(shown.count(f"12 {reason}") == 2 for reason in REASONS)
    assert "" in [line.strip() for line in lines]


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_without_a_server_it_says_why(size: tuple[int, int]) -> None:
    shown = " ".join(drawn(*size, f"no answer from {URL}: is it running?", processes("restarting")))
    assert "is it running?" in shown
    assert all(name in shown for name in NAMES)


def test_what_a_worker_says_of_itself_is_its_state() -> None:
    said = answers("ok", 1, {}, "retrying")
    shown = drawn(80, 24, said, processes())
    assert sum(line.count("retrying") for line in shown) == 4  # both, and both of their processes
    assert not [line for line in drawn(80, 24, said, processes("stopped")) if "process" in line][1:]
