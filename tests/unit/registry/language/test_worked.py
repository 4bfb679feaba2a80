"""The arithmetic in steps: against an oracle, and to the bit against the kernel."""

from __future__ import annotations

import math
import random
import re
import struct
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.compute import natural_log as compiled
from pipelines.compute.recomputation import AcceptedTicks, Recomputation
from registry.definitions import Catalog, FeatureVersion, Field, RowSchema, Source
from registry.formats.status import Status, has_value
from registry.language import natural_log
from registry.language.derived import compile_derived
from registry.language.program import compile_program
from registry.language.terms import Part
from registry.language.worked import window_of
from registry.language.worked_terms import worked_sum, worked_term
from tests.support.examples import examples

SOURCE = Source("s", "t", ("k",), (Field("x"),))
WINDOWS = {"last(x)": 1, "mean(x, 4)": 4, "stddev(log_return(x), 3)": 4}
doubles = st.one_of(
    st.floats(width=64),
    st.floats(1e-3, 1e6),
    st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, 2.2250738585072014e-308]),
)


def bits(value: float) -> bytes:
    return b"" if math.isnan(value) else struct.pack(">d", value)


@examples(10)
@given(doubles, doubles)
def test_the_logarithm_has_the_bits_of_the_kernels(after: float, before: float) -> None:
    assert bits(natural_log.log(after)) == bits(compiled.log(after))
    assert bits(natural_log.log_ratio(after, before)) == bits(compiled.log_ratio(after, before))


@pytest.mark.parametrize("expression", WINDOWS)
@examples(10)
@given(st.data())
def test_a_window_has_the_bits_of_the_kernels(expression: str, data: st.DataObject) -> None:
    n = WINDOWS[expression]
    values = data.draw(st.lists(doubles, min_size=n, max_size=n))
    version = FeatureVersion("f", "1", ("k",), expression, "s")
    catalog = Catalog({"s": SOURCE}, {"f@1": version}, {}, {}, {})
    program = compile_program(catalog, RowSchema(0, "s", ("f@1",)))
    closed = np.zeros(1, np.bool_)
    ticks = AcceptedTicks(np.zeros(n, np.int32), np.zeros(n, np.uint8), np.array(values), closed)
    wanted = float(Recomputation(program).compute(ticks).features[-1, 0])
    worked = window_of(expression, SOURCE, "f").worked(values)
    assert bits(worked.value) == bits(wanted)
    assert (worked.undefined_by is None) == math.isfinite(worked.value)
    assert worked.steps[-1].value == worked.value or math.isnan(worked.value)


@pytest.mark.parametrize("level", [189.0, 95_000.0, 1_000_000.0])
def test_the_steps_are_those_of_a_textbook(level: float) -> None:
    chance = random.Random(3)
    values = [level * (1 + chance.uniform(-1e-3, 1e-3)) for _ in range(21)]
    series = pd.Series(values)
    mean = window_of("mean(x, 21)", SOURCE, "f").worked(values)
    sums = series.cumsum().tolist()
    assert [step.value for step in mean.steps[:-1]] == pytest.approx(sums, rel=1e-12)
    assert mean.value == pytest.approx(series.mean(), rel=1e-12)
    deviation = window_of("stddev(log_return(x), 20)", SOURCE, "f").worked(values)
    returns = np.log(series / series.shift()).dropna()
    found = [step.value for step in deviation.steps[:20]]
    assert found == pytest.approx(returns.tolist(), rel=1e-12, abs=1e-15)
    assert deviation.value == pytest.approx(returns.std(ddof=1), rel=1e-9)


def test_the_step_is_named_that_has_no_value() -> None:
    worked = window_of("stddev(log_return(x), 2)", SOURCE, "f").worked([1.0, 0.0, 2.0])
    assert worked.undefined_by is not None
    assert worked.undefined_by.text == "return 1 = log(0.0 / 1.0)"


statuses = st.sampled_from([*Status, *[Status.OK] * 6])


@st.composite
def parts(draw: st.DrawFn) -> Part:
    status = draw(statuses)
    seldom = status in (Status.MISSING, Status.UNAVAILABLE) and draw(st.booleans())
    values = st.sampled_from([0.0, -0.0, 1.5, -2.0, 3.0, 1e-200, -1e-200, 1e200])
    value = draw(values) if has_value(status) else math.nan
    return Part(value, status, None if seldom else draw(st.integers(1, 9)))


expressions = st.recursive(
    st.sampled_from(["a", "b", "c", "a", "b", "c", "0", "2", "0.5"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("**/+-"), inner).map(" ".join).map("({})".format),
        inner.map("abs({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=7,
)
entities = st.fixed_dictionaries({name: parts() for name in "abc"})


@examples(10)
@given(expressions, st.lists(entities, min_size=1, max_size=3), st.booleans())
def test_a_derived_value_is_what_servers_compute(
    term: str, each: list[Mapping[str, Part]], sums: bool
) -> None:
    assume(re.search(r"\b[abc]\b", term))  # an expression without a feature is refused
    expression, entities = (f"sum({term})", each) if sums else (term, each[:1])
    wanted = compile_derived(expression, "test").evaluate(entities)
    found = [worked_term(expression, "test", one) for one in entities]
    status = max((one.status for one in found), key=list(Status).index)
    times = [one.event_time for one in found if one.event_time is not None]
    values = [one.worked.value for one in found]
    value = worked_sum(values).value if sums else values[0]
    if has_value(status) and not math.isfinite(value):
        status = Status.UNDEFINED
    assert (status, min(times, default=None)) == (wanted.status, wanted.event_time)
    if has_value(status):
        assert bits(value) == bits(wanted.value)
