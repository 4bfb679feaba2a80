"""The checker's own parts: it knows nothing of the product, and its quick arithmetic is right."""

from __future__ import annotations

import ast
import math
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tests.checker
import tests.oracle
from tests.checker.arithmetic import BOUND, TOLERANCE, estimate, explain
from tests.checker.packed import Chain, Corrupt, read_chain, read_state
from tests.oracle.features import Feature, evaluate
from tests.oracle.messages import Record, SourceSpec, texts

PRODUCT = {"registry", "pipelines", "serving", "tickwell"}
PRICE = SourceSpec("price", "t", ("symbol",), (("price", True, None),))
NOW_MS = 1_700_000_000_000
FEATURES = (
    Feature("last", "last", 0, 1),
    Feature("mean", "mean", 0, 5),
    Feature("volatility", "volatility", 0, 3),
)
prices = st.one_of(
    st.floats(0.01, 1000.0),
    st.sampled_from([100.0, 100.00000000000001, 5e-324, 1.7e308, -1.0, 0.0, 1e-300]),
    st.floats(allow_infinity=False),  # no tick has an infinite number
)


def test_it_imports_nothing_of_the_product() -> None:
    """Neither in the source nor once everything is loaded."""
    for package in (tests.checker, tests.oracle):
        for file in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                assert not {name.split(".")[0] for name in names} & PRODUCT, file
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, tests.checker.__main__; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert "tests.checker.check" in loaded
    assert not {name.split(".")[0] for name in loaded} & PRODUCT


@given(st.lists(prices, max_size=8), st.sampled_from(FEATURES), st.floats(-3e-12, 3e-12))
@example([100.0, 100.0 + 1e-9, 100.0, 100.0 - 1e-9], FEATURES[2], 0.99e-12)
def test_it_decides_as_exact_arithmetic_does(
    values: list[float], feature: Feature, off: float
) -> None:
    """Of a value that is off by some parts of the largest magnitude in the window."""
    window = [(value,) for value in values]
    exact = evaluate(feature, window)
    if exact.value is None or exact.magnitude > 1e306:
        wrong, _ = explain(feature, window, math.nan, exact.status)
        assert wrong is None or exact.status == "ok"
        assert explain(feature, window, 1.0, exact.status)[0] is not None or exact.status == "ok"
        return
    value = exact.value + off * exact.magnitude
    right = abs(value - exact.value) <= TOLERANCE * exact.magnitude
    if feature.function == "last":
        right = value == exact.value
    assert (explain(feature, window, value, "ok")[0] is None) == right


@given(
    st.lists(st.sampled_from([1e-300, 1e-5, 1.0, 100.0, 1e9, 1e299]), min_size=1, max_size=3),
    st.lists(st.floats(-1e-3, 1e-3) | st.floats(-1e-13, 1e-13), min_size=6, max_size=6),
    st.sampled_from(FEATURES),
)
def test_the_quick_values_are_within_their_bound(
    levels: list[float], moves: list[float], feature: Feature
) -> None:
    """Prices far apart and prices that hardly move: there a log of a ratio loses its digits."""
    window = [(levels[n % len(levels)] * (1 + move),) for n, move in enumerate(moves)]
    exact, near = evaluate(feature, window), estimate(feature, window)
    if near is not None:
        assert exact.value is not None
        assert abs(near[0] - exact.value) <= BOUND * exact.magnitude


def test_a_status_that_is_not_so_is_told() -> None:
    window = [(1.0,), (2.0,)]
    assert explain(FEATURES[1], window, 1.5, "ok")[0] is not None
    assert explain(FEATURES[0], window, math.nan, "warming")[0] is not None
    assert explain(FEATURES[0], window, 2.0, "ok") == (None, False)


def test_the_bytes_of_an_arrays_ticks() -> None:
    message = b'[ {"a": [1, "],[" , {}]} ,\n7,"x\\",y" ]'
    elements: list[bytes | None] = [b'{"a": [1, "],[" , {}]}', b"7", b'"x\\",y"']

    def cut(value: bytes | None, key: bytes = b"k", spec: SourceSpec = PRICE) -> list[bytes | None]:
        return texts(Record("t", 0, 0, NOW_MS, key, value), spec)

    assert cut(message) == elements
    assert cut(b"[]") == [b"[]"]
    assert cut(b"[1,") == [b"[1,"]
    assert cut(None) == [None]
    assert cut(message, b"k" * 256) == [message]
    inside = b'{"d": {"x": [0]}, "e": {"d": 1}, "d" :{"y":{}, "x":' + message + b', "z": [8]}}'
    assert cut(inside, spec=replace(PRICE, items=("d", "x"))) == elements


def test_a_window_state_and_its_chunks() -> None:
    """Of 21 ticks: number 16 to 20 are in the tail, before them two chunks of a block each."""
    header = bytes(16) + struct.pack(">iqiqqqiIIBB2s", 1, 90, 0, 21, 2, 77, 3, 0, 0, 1, 3, b"")

    def ticks(*numbers: int) -> bytes:
        return b"".join(struct.pack("<qqd", n * 10, n * 100, n / 2) for n in numbers)

    chunks = {1: ticks(*range(8)), 2: ticks(*range(8, 16)), 3: b"another"}
    state = read_state(header + ticks(*range(16, 21)), 1)
    assert (state.origin[1:], state.sequence, state.count, state.fill) == ((1, 90, 0), 2, 21, 3)
    assert (state.event_time, state.first_block) == (77, 0)
    chain = read_chain(state, chunks, 1)
    assert chain.names == {1, 2}
    assert [chain.tick(back, 1).tick_time for back in range(21)] == [
        n * 10 for n in range(20, -1, -1)
    ]
    assert chain.tick(0, 1).fields == struct.pack("<d", 10)
    with pytest.raises(Corrupt):
        chain.tick(21, 1)
    joined = {2: chunks[1] + chunks[2]}
    assert read_chain(state, joined, 1) == Chain(frozenset({2}), chain.ticks)
    assert read_chain(replace(state, first_block=1), chunks, 1).names == {2}
    assert read_chain(replace(state, first_block=1), joined, 1).ticks == chain.ticks
    for missing in (1, 2):
        with pytest.raises(Corrupt, match=f"no chunk ends before block {missing}"):
            read_chain(state, {n: chunk for n, chunk in chunks.items() if n != missing}, 1)


@pytest.mark.parametrize(("blocks", "taken"), [((2, 32), True), ((1, 33), False), ((34,), False)])
def test_a_chunk_has_32_blocks_at_most(blocks: tuple[int, ...], taken: bool) -> None:
    packed = bytes(16) + struct.pack(">iqiqqqiIIBB2s", 1, 90, 0, 273, 2, 77, 3, 0, 0, 1, 3, b"")
    state = read_state(packed + bytes(24), 1)
    chunks = {sum(blocks[: n + 1]): bytes(size * 8 * 24) for n, size in enumerate(blocks)}
    if taken:
        assert read_chain(state, chunks, 1).names == {2, 34}
    else:
        with pytest.raises(Corrupt, match="no chunk that ends before block 34"):
            read_chain(state, chunks, 1)
