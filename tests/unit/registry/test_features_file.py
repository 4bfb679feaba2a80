"""Files that a person, or an attacker, might write: refused by location, without a crash."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from registry.definitions import HISTORY
from registry.errors import DefinitionError
from registry.features_export import text_of
from registry.features_file import Text, read, read_text
from registry.language.derived import compile_derived
from registry.language.program import compile_expression
from tests.support.shipped import SHIPPED, changed

SMA = '"mean(price, 5)"'
SUM = '"sum(position_size'
NINE_KEYS = 'key = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]'


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        # names
        ('name = "current_price"', 'name = "price"', "price is a field of its ticks"),
        ('name = "current_price"', 'name = "symbol"', "symbol is a field of its ticks"),
        ('name = "current_price"', 'name = "size"', "size is a field of its ticks"),
        ('name = "portfolio_exposure"', 'name = "portfolio"', "portfolio is a field"),
        ('aliases = ["volatility"]', 'aliases = ["size"]', "size is a field of its ticks"),
        ('name = "current_price"', 'name = "lambda"', "cannot be read in an expression"),
        ('name = "current_price"', f'name = "{"a" * 64}"', "at most 63"),
        ('name = "current_price"', 'name = "prix_\u00e9"', "cannot be a name"),
        ('{ name = "price" }', '{ name = "from" }', "cannot be read in an expression"),
        ('{ name = "price" }', '{ name = "seq" }', "cannot be a name"),
        ('{ name = "price" }', '{ name = "symbol" }', "twice"),
        # sources
        ("default = 1.0", "default = nan", "default nan, which must be a finite number"),
        ("default = 1.0", "default = -inf", "default -inf, which must be a finite number"),
        ("default = 1.0", f"default = 1{'0' * 400}", "source position: Number out of range"),
        ("default = 1.0", "default = true", "source position: Expected `float"),
        ("default = 1.0 }]", "default = 0 }]\npositive = true", "must be a positive number"),
        ('key = ["symbol"]', NINE_KEYS, "has 9 key fields"),
        ('key = ["symbol"]', "key = []", "has 0 key fields"),
        ('topic = "ticks.volume"', 'topic = "ticks volume"', "cannot be a topic's name"),
        ('topic = "ticks.volume"', 'topic = ".."', "cannot be a topic's name"),
        ('topic = "ticks.volume"', 'topic = ""', "cannot be a topic's name"),
        ('skew = "1s"', "history = 63", "source price: history 63 must be 64 to 65536"),
        ('skew = "1s"', "history = 65537", "without `history` it is 1024"),
        ('skew = "1s"', "history = true", "Expected `int`, got `bool`"),
        ('skew = "1s"', 'history = "64"', "Expected `int`, got `str`"),
        # durations and versions
        ('skew = "1s"', 'skew = "-1s"', "is not a duration"),
        ('skew = "1s"', 'skew = "2d"', "skew '2d' is too long: at most 1d"),
        ('skew = "1s"', f'skew = "{"9" * 5000}s"', "is not a duration"),
        ('skew = "1s"', 'skew = "\u0661s"', "is not a duration"),
        ('skew = "1s"', "skew = 1", "Expected `str`, got `int`"),
        ('max_age = "1m"', 'max_age = "0s"', "makes every value stale"),
        ('max_age = "1m"', 'max_age = "36501d"', "too long: at most 36500d"),
        ('version = "1.0.0"', "version = 1.0", "feature current_price: Expected `str`"),
        ('version = "1.0.0"', 'version = "1.\u0663.0"', "not of the form"),
        ('description = "The last price."', 'description = "\\u0000"', "NUL"),
        # expressions over ticks
        (SMA, '"mean(price, 1000000000)"', "up to 1023"),
        (SMA, '"mean(price, 10**9)"', "is not one of"),
        (SMA, '"mean(price, -5)"', "is not one of"),
        (SMA, '"mean(price, True)"', "is not one of"),
        (SMA, '"mean(price, 5.0)"', "is not one of"),
        (SMA, '"mean(price, n=5)"', "is not one of"),
        ('"stddev(log_return(price), 20)"', '"stddev(log_return(price), 1)"', "at least 2"),
        (SMA, f'"mean({"(" * 10_000}price"', "may have 2000"),
        (SMA, f'"{"-" * 1_900}price"', "nested deeper than 100"),
        (SMA, f'"{"(" * 900}price{")" * 900}"', "cannot be read|deeper"),
        (SMA, '"mean(pr\u0456ce, 5)"', "ASCII"),
        (SMA, '"mean(price\\u0000, 5)"', "NUL"),
        (SMA, '""', "cannot be read"),
        # derived expressions
        (SUM, f'"sum({"1 + " * 200}position_size', "nested deeper"),
        (SUM, '"sum(1e999 * position_size', "finite numbers"),
        (SUM, f'"sum(1{"0" * 400} * position_size', "finite numbers"),
        (SUM, '"sum(True * position_size', "not `True`"),
        (SUM, '"sum(position_size ** 2', "may hold names"),
        ("* current_price)", "* volatility)", "names none by alias"),
        ('entity = ["portfolio"]', 'entity = ["portfolio", "portfolio"]', "twice"),
        ('entity = ["portfolio"]', 'entity = ["symbol"]', "must begin position's key"),
        ('over = "position"', "", "`over` names the source"),
        ("[[feature]]", "[[features]]", "unknown field `features`"),
    ],
)
def test_mistakes_are_reported_with_their_location(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    file = changed(tmp_path, old, new)
    with pytest.raises(DefinitionError, match=what) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", r"declares no \[\[feature\]\]"),
        ("source = []\nfeature = []", r"declares no \[\[feature\]\]"),
        ("source = 1\nfeature = []", "Expected `array`, got `int`"),
        ("source = [1]\nfeature = []", "Expected `object`, got `int`"),
        ("feature = []\n[[source]]\nname = 7", "source 7: "),
        ("source = [" + "[" * 100_000, "nested|Invalid"),
        ("a = " + "1" * 10_000, "4300"),
        ("[[source]", "line 1"),
    ],
)
def test_a_file_of_another_form(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "features.toml"
    file.write_text(text)
    with pytest.raises(DefinitionError, match=what) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "features.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DefinitionError, match="not text in UTF-8"):
        read(file)
    with pytest.raises(DefinitionError, match="cannot be read: Is a directory"):
        read(tmp_path)
    file.write_bytes(b"\xef\xbb\xbf" + SHIPPED.read_bytes())  # as editors on Windows begin a file
    assert read(file).features == read().features


@pytest.mark.parametrize("history", [64, 1024, 65_536])
def test_a_history_is_exported_as_it_was_read(tmp_path: Path, history: int) -> None:
    given = read(changed(tmp_path, 'skew = "1s"', f"history = {history}"))
    text = text_of(given)
    assert ("history" in text) is (history != HISTORY)
    assert read_text(Text("f.toml", text)) == structs.replace(given, file="f.toml")
    assert read().sources[0].history == HISTORY


def test_versions_of_a_feature_are_of_one_kind(tmp_path: Path) -> None:
    file = tmp_path / "features.toml"
    more = """
    [[feature]]
    name = "price_sma_5"
    version = "2.0.0"
    entity = ["symbol"]
    expression = "price_sma_20 / 2"
    """
    file.write_text(SHIPPED.read_text() + more)
    with pytest.raises(
        DefinitionError, match=r"1\.0\.0 is computed from ticks.*2\.0\.0 is derived"
    ):
        read(file)


@given(st.text(max_size=60) | st.text("abs(+-*/1.e\\'\" \n", max_size=60))
def test_any_text_is_an_expression_or_a_definition_error(text: str) -> None:
    with contextlib.suppress(DefinitionError):
        compile_expression(text, read().sources[0], "here")
    with contextlib.suppress(DefinitionError):
        compile_derived(text, "here")
