"""From ticks to a model: how volatile will each symbol be in its next 20 ticks?

    make up                                  # in another terminal, for two minutes at least
    eval "$(tickwell env)"
    python examples/volatility.py volatility.png

1. The moments to learn from are ticks of the last minutes, and the labels what came after them.
2. The features are those that a model would have been given at these moments.
3. A linear model learns on the first part and is tried on the last one; rows whose label reaches
   into the last part are purged from the first.
4. The model is asked about now, with features from the server, and the vector of each symbol is
   compared, bit for bit, with the row of a training set of the same instant.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psycopg2
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tickwell import Client, split_by_time

FEATURES = [
    *("price_volatility", "current_price", "price_sma_5", "price_sma_20"),
    *("current_volume", "volume_sma_10"),
]
AHEAD = 20
"""Ticks that the label is of."""

EVERY = 4
"""Ticks of which one is learnt from: neighbours say nearly the same."""

LEAST_ROWS = 500
ATTEMPTS = 20
STORED_SECONDS = 10
"""Time after which it is known that all which was served is in Postgres, too: a training set of
later moments would be open."""

matplotlib.use("Agg")  # a file is drawn, no window
TICKS = """
    SELECT symbol, ts, known_at, price, price_volatility FROM features.price
    WHERE ts > now() - interval '30 minutes' AND known_at < now() - %s * interval '1 second'
    ORDER BY symbol, event_time, sequence
"""


def main() -> None:
    png = Path(sys.argv[1] if len(sys.argv) > 1 else "volatility.png")
    ticks = read_ticks()
    rows = labelled(ticks)
    if len(rows) < LEAST_ROWS:
        sys.exit(f"{len(rows)} rows to learn from, {LEAST_ROWS} are needed: wait a minute")
    with Client(deadline_seconds=60) as store:
        rows = store.get_offline_features(FEATURES, rows, "known_at")
        rows = rows[(rows[[f"{name}__status" for name in FEATURES]] == "ok").all(axis=1)]
        cut = rows["known_at"].quantile(0.7)
        train, test = split_by_time(rows, "known_at", at=cut, label_end_col="label_end")
        model = make_pipeline(StandardScaler(), Ridge()).fit(inputs(train), np.log(train["label"]))
        test["forecast"] = np.exp(model.predict(inputs(test)))
        print(f"learnt from {len(train):,} rows, tried on {len(test):,}")
        truth = np.log(test["label"])
        print(f"R2 of the model:            {r2_score(truth, np.log(test['forecast'])):6.3f}")
        print(
            f"R2 of 'it stays as it is':  {r2_score(truth, np.log(test['price_volatility'])):6.3f}"
        )
        score_now(store, model, sorted(rows["symbol"].unique()))
    draw(png, test, ticks[ticks["known_at"] >= cut])
    print(f"{png}: prices and forecasts")


def read_ticks() -> pd.DataFrame:
    connection = psycopg2.connect(os.environ["TICKWELL_POSTGRES"])
    with connection, connection.cursor() as cursor:
        cursor.execute(TICKS, (STORED_SECONDS,))
        names = [column.name for column in cursor.description or ()]
        return pd.DataFrame(cursor.fetchall(), columns=names)


def labelled(ticks: pd.DataFrame) -> pd.DataFrame:
    """Some of the ticks, with the deviation of the 20 returns that came after each."""
    by_symbol = ticks.groupby("symbol")
    ticks = ticks.assign(
        label=by_symbol["price_volatility"].shift(-AHEAD),
        label_end=by_symbol["known_at"].shift(-AHEAD),
    )
    some = ticks[by_symbol.cumcount() % EVERY == 0].dropna()
    some = some[some["label"] > 0]
    return some[["symbol", "known_at", "label", "label_end"]].reset_index(drop=True)


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    """What the model is given, of features."""
    return pd.DataFrame(
        {
            "volatility": np.log(rows["price_volatility"]),
            "trend": np.log(rows["price_sma_5"] / rows["price_sma_20"]).abs(),
            "distance": np.log(rows["current_price"] / rows["price_sma_20"]).abs(),
            "volume": np.log(rows["current_volume"] / rows["volume_sma_10"]),
        }
    )


def score_now(store: Client, model: Pipeline, symbols: list[str]) -> None:
    """Forecasts of now, and whether a training set has the very vectors that were served."""
    left = set(symbols)
    for attempt in range(ATTEMPTS):
        moment = pd.Timestamp.now("UTC")
        asked = [{"symbol": symbol} for symbol in symbols]
        served = store.get_batch_features(FEATURES, asked).to_pandas(include=["event_time"])
        if attempt == 0:
            has = served[FEATURES].notna().all(axis=1)  # or its windows have just been emptied
            forecasts = np.exp(model.predict(inputs(served[has])))
            for symbol, forecast in zip(served.loc[has, "symbol"], forecasts, strict=True):
                print(f"{symbol}: {forecast:.2%} a tick in the next {AHEAD} ticks")
        time.sleep(STORED_SECONDS)
        rows = pd.DataFrame({"symbol": symbols, "timestamp": moment})
        trained = store.get_offline_features(FEATURES, rows, event_times=True)
        times = [f"{name}__event_time" for name in FEATURES]
        now = served[[f"{name}.event_time" for name in FEATURES]].to_numpy()
        same_ticks = (now == trained[times].to_numpy()).all(axis=1)  # none arrived just then
        same_bits = bits(served) == bits(trained)
        for symbol, ticks, equal in zip(symbols, same_ticks, same_bits.all(axis=1), strict=True):
            if ticks and not equal:
                sys.exit(f"{symbol}: the training set has other values than were served")
            if ticks:
                left.discard(symbol)
        if not left:
            print("what was served is the row of a training set, to the bit, of all symbols")
            return
    sys.exit(f"of {', '.join(sorted(left))} no vector was found that is of the same ticks")


def bits(rows: pd.DataFrame) -> Any:
    return np.ascontiguousarray(rows[FEATURES].to_numpy(np.float64)).view(np.int64)


def draw(png: Path, test: pd.DataFrame, ticks: pd.DataFrame) -> None:
    """Prices, and volatility as it was forecast and as it came, of each symbol."""
    symbols = sorted(test["symbol"].unique())
    figure, axes = plt.subplots(len(symbols), 2, figsize=(11, 1.8 * len(symbols)), squeeze=False)
    for (prices, forecasts), symbol in zip(axes, symbols, strict=True):
        of_symbol = ticks[ticks["symbol"] == symbol]
        rows = test[test["symbol"] == symbol]
        prices.plot(of_symbol["ts"], of_symbol["price"], color="#0b7285", linewidth=0.8)
        forecasts.plot(rows["known_at"], rows["label"], color="#868e96", label="as it came")
        forecasts.plot(rows["known_at"], rows["forecast"], color="#e8590c", label="forecast")
        prices.set_ylabel(symbol)
        for panel in (prices, forecasts):
            panel.tick_params(labelsize=6)
    axes[0][0].set_title("price", fontsize=9)
    axes[0][1].set_title(f"deviation of the next {AHEAD} returns", fontsize=9)
    axes[0][1].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(png, dpi=120)


if __name__ == "__main__":
    main()
