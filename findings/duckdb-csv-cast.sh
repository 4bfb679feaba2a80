#!/usr/bin/env bash
# Library: DuckDB 2.0.1 (Python package `duckdb`).
# Behaviour: a cast of a column of `read_csv` is moved into the reader, which converts the text
# itself and rounds halves away from zero. When the query also uses the column without the cast,
# the column is read as DOUBLE and cast afterwards, which rounds halves to even. One more column
# changes the other's values.
# Why it matters to a feature store: prices become whole ticks by such a cast while they are
# loaded, and a query made to look into the load answers with other numbers than the load had.
# Output seen on 2026-11-28 (the file has 2.5, 3.5, 0.5, -2.5 and 1.25):
# > cast alone: [3, 4, 1, -3, 1]
# > cast beside the column: [2, 4, 0, -2, 1]
# > cast alone, where the price is below 9: [2, 4, 0, -2, 1]
# > cast of a table made from the file: [2, 4, 0, -2, 1]
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    duckdb==2.0.1 || exit 2
printf '%s\n' price 2.5 3.5 0.5 -2.5 1.25 >"$work/prices.csv"

"$work/venv/bin/python" - "$work/prices.csv" >"$work/seen" <<'END' || true
import sys

import duckdb

database = duckdb.connect()
database.execute("set threads = 1")
database.execute("create table prices as from read_csv(?)", [sys.argv[1]])
file = f"read_csv('{sys.argv[1]}')"
for name, query in {
    "cast alone": f"select price::integer from {file}",
    "cast beside the column": f"select price::integer, price from {file}",
    "cast alone, where the price is below 9": f"select price::integer from {file} where price < 9",
    "cast of a table made from the file": "select price::integer from prices",
}.items():
    print(f"{name}:", [row[0] for row in database.execute(query).fetchall()])
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: how DuckDB rounds a cast of read_csv (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
