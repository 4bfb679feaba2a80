"""What the benchmarks ask of servers, and what they make of the answers. Nothing is timed."""

from __future__ import annotations

import ast
import json
import re

import pytest

from benchmarks import serving_table
from benchmarks.asking import DERIVED, FEATURES, PRICES, VOLUMES, Api, bodies, requests
from benchmarks.market import features
from benchmarks.peers.environment import FEAST, HERE
from benchmarks.results import Run
from benchmarks.serving import cases, rows_of_hot
from benchmarks.serving_table import (
    AIMS,
    CHECKED,
    EMPTY_OURS,
    EMPTY_STOCK,
    ONE,
    PRECOMPUTED,
    THIS_BUILD,
)
from tests.support import feast_sdk


def run(subject: str, number: int, a_second: float, p99: float = 1.0, mb: float = 100.0) -> Run:
    return Run(
        subject=subject,
        round=number,
        value=1e6 / a_second,
        memory_mb=mb,
        detail={"a_second": a_second, "ms": {"p50": p99 / 2, "p99": p99, "max": p99}},
    )


def cells(lines: list[str], begin: str) -> list[str]:
    line = next(line for line in lines if line.startswith(f"| {begin}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_of_one_round() -> None:
    runs = [
        *(run(f"{ONE}: {EMPTY_STOCK}", number, rate) for number, rate in ((1, 100), (2, 200))),
        *(run(f"{ONE}: {CHECKED}", number, rate) for number, rate in ((1, 90), (2, 100), (3, 7))),
    ]
    shown = cells(serving_table.table(runs), f"{ONE}: {CHECKED} ")
    assert shown[1:] == [
        "90",
        "11,111.1",
        "0.50, 1.00",
        "100",
        "0.70 (0.50 to 0.90)",
        *["", "", ""],
    ]


def test_what_was_not_reached_is_bold() -> None:
    runs = [
        run(f"{ONE}: {EMPTY_STOCK}", 1, 100),
        run(f"{ONE}: {EMPTY_OURS}", 1, 200),
        run(f"{ONE}: {CHECKED}", 1, 90, mb=151),
    ]
    lines = serving_table.table(runs)
    stock = cells(lines, f"{ONE}: {CHECKED}; requests/s: it / {EMPTY_STOCK}")
    assert stock[1:] == ["≥ 0.85", "0.90 (0.90 to 0.90)"]
    ours = cells(lines, f"{ONE}: {CHECKED}; requests/s: it / {EMPTY_OURS}")
    assert ours[1:] == ["≥ 0.7", "**0.45 (0.45 to 0.45)**"]
    assert cells(lines, "this build: the most resident")[1:] == ["≤ 150", "**151**"]


def test_most_entities_are_beside_few() -> None:
    few, many = (f"{ONE}, {number} entities: {THIS_BUILD}" for number in ("500", "1,000,000"))
    lines = serving_table.table([run(few, 1, 100, p99=4.0), run(many, 1, 100, p99=5.0)])
    assert cells(lines, f"{many}; p99")[1:] == ["flat", "1.25 (1.25 to 1.25)"]


def test_runs_that_failed_are_in_no_figure() -> None:
    failed = Run(subject=f"{ONE}: {EMPTY_STOCK}", round=1, error="it ended")
    lines = serving_table.table([failed, run(f"{ONE}: {CHECKED}", 1, 90)])
    assert not any(EMPTY_STOCK in line for line in lines[1:])


def test_every_aim_is_of_something_that_is_measured() -> None:
    subjects = {subject for subject, _ in cases(1.0)}
    assert len(subjects) == len(cases(1.0))
    for aim in AIMS:
        assert f"{aim.load}: {aim.subject}" in subjects
        assert not aim.beside or f"{aim.load}: {aim.beside}" in subjects
    assert f"{serving_table.FLAT}: {THIS_BUILD}" in subjects


def test_rows_of_hot_are_counted() -> None:
    text = (
        "# TYPE tickwell_tier_rows_asked counter\n"
        'tickwell_tier_rows_asked_total{tier="hot"} 200.0\n'
        'tickwell_tier_rows_asked_total{tier="warm"} 3.0\n'
        "# TYPE tickwell_tier_rows_found counter\n"
        'tickwell_tier_rows_found_total{tier="hot"} 197.0\n'
    )
    assert rows_of_hot(text) == (200.0, 197.0)
    assert rows_of_hot("") == (0.0, 0.0)


@pytest.mark.parametrize("question", ["one", "batch"])
def test_all_are_asked_for_the_same(question: str) -> None:
    apis: tuple[Api, ...] = ("tickwell", "feast", "precomputed")
    ours, feast, precomputed = (
        [json.loads(body) for body in bodies(question, 50, api)] for api in apis
    )
    assert len(ours) == len(feast) == len(precomputed) == 50
    for mine, its, computed in zip(ours, feast, precomputed, strict=True):
        named = [mine["entity"]] if question == "one" else mine["entities"]
        assert its["entities"] == computed["entities"] == {"symbol": [n["symbol"] for n in named]}
        assert [name.partition(":")[2] for name in its["features"]] == mine["features"]
        assert computed["feature_service"] == PRECOMPUTED.partition(", ")[2]


def test_every_symbol_is_asked_for() -> None:
    asked = [json.loads(body)["entity"]["symbol"] for body in bodies("one", 1_000)]
    assert sorted(asked) == sorted({f"S{number}" for number in range(1_000)})
    many = [json.loads(body)["entity"]["symbol"] for body in bodies("one", 1_000_000)]
    assert len(set(many)) == 20_000


def test_a_key_comes_with_a_deadline_and_a_request_id_of_its_own() -> None:
    plain, checked = requests("one", 10), requests("one", 10, key="tw_key")
    assert b"X-" not in plain[0]
    assert b"Authorization: Bearer tw_key\r\nX-Deadline-Ms: 5000\r\n" in checked[0]
    ids = [re.findall(rb"X-Request-Id: (\S+)\r\n", request) for request in checked]
    assert len({tuple(one) for one in ids}) == 10
    for request in (*plain, *checked):
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.endswith(b"Content-Length: %d" % len(body))


def test_the_same_features_are_in_feasts_repository() -> None:
    """That program runs where nothing of ours can be imported."""
    source = (HERE / "feast_repository.py").read_text()
    said = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert said == {"PRICES": PRICES, "VOLUMES": VOLUMES, "DERIVED": DERIVED}
    assert all(f'name = "{name}"' in features() for name in FEATURES)
    assert 'topic = "other.price"' in features("other")


def test_feast_is_the_one_that_the_tests_have() -> None:
    (line,) = (one for one in FEAST.requirements.read_text().splitlines() if "==" in one)
    assert line.replace("[duckdb,redis]", "") in feast_sdk.REQUIREMENTS
