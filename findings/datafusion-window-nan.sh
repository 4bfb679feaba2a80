#!/usr/bin/env bash
# Library: DataFusion 55.0.0 (Python package `datafusion`).
# Behaviour: `sum`, `avg` and `stddev` over a sliding frame subtract the row that leaves the
# frame from a running total. One NaN therefore makes every later row NaN, although the frame of
# ten rows left the NaN behind long ago. `max` over the same frame recovers.
# Why it matters to a feature store: a backfill that reaches one NaN in a year of prices returns
# no moving average after it, while a live worker that looks at the ten ticks of its window has
# one again after ten ticks.
# Output seen on 2026-11-28 (1,000 prices, a NaN in row 100, frames of ten rows):
# > sum: 900 rows are NaN, rows 100 to 999
# > avg: 900 rows are NaN, rows 100 to 999
# > stddev: 900 rows are NaN, rows 100 to 999
# > max: 10 rows are NaN, rows 100 to 109
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    datafusion==55.0.0 numpy==2.4.6 pyarrow==26.0.1 || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
import numpy as np
import pyarrow as pa
from datafusion import SessionContext

prices = np.round(189 + 0.01 * np.random.default_rng(7).integers(-50, 51, 1000), 2)
prices[100] = np.nan
ticks = pa.table({"number": np.arange(1000), "price": prices})
context = SessionContext()
context.register_record_batches("ticks", [ticks.to_batches()])
for function in ("sum", "avg", "stddev", "max"):
    answer = context.sql(
        f"select {function}(price) over (order by number rows between 9 preceding and current row)"
        " as feature from ticks order by number"
    ).to_arrow_table()
    # The first row has no deviation: one price alone.
    feature = answer["feature"].to_numpy()
    missing = [row for row in np.flatnonzero(np.isnan(feature)) if row >= 9]
    print(f"{function}: {len(missing)} rows are NaN, rows {missing[0]} to {missing[-1]}")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: DataFusion's sliding aggregates after a NaN (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
