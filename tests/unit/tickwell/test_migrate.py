"""What `migrate` refuses before it asks any service: what is recorded is never taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.shipped import changed
from tickwell.errors import TickwellError
from tickwell.migrate import migrate
from tickwell.settings import Settings


@pytest.mark.parametrize(
    ("expression", "history", "needed"),
    [("mean(price, 100)", 99, 100), ("stddev(log_return(price), 100)", 100, 101)],
)
def test_a_feature_of_more_ticks_than_are_kept(
    tmp_path: Path, expression: str, history: int, needed: int
) -> None:
    file = changed(tmp_path, '"mean(price, 20)"', f'"{expression}"')
    settings = Settings(
        kafka="127.0.0.1:1",
        postgres="postgresql://127.0.0.1:1/none",
        features=str(file),
        history=history,
    )
    with pytest.raises(TickwellError, match=f"price_sma_20@1.0.0 needs {needed} ticks") as refused:
        migrate(settings)
    assert f"set TICKWELL_HISTORY to at least {needed}" in str(refused.value)
