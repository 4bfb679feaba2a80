#!/usr/bin/env bash
# Library: DuckDB 2.0.1 (Python package `duckdb`).
# Behaviour: where several right rows have the same time, an ASOF join takes the first of them if
# the optimizer estimates fewer than 64 left rows (`asof_loop_join_threshold`: a nested loop),
# else the last. A filter changes the estimate, and so the answer for a row that it lets through:
# the even seconds are 500 rows and estimated as one.
# Why it matters to a feature store: several ticks of one stamp are common. A training set and a
# spot check of one of its rows then disagree, and no row has changed. The right side needs one
# row a stamp.
# Output seen on 2026-11-28 (1,000 questions, three prices for each second, asked about second
# 500):
# > all 1,000 questions: price 189.2
# > where second = 500: price 189.0
# > where second between 450 and 550: price 189.2
# > where second % 2 = 0: price 189.0
# > where second % 2 = 0, threshold 0: price 189.2
# > 63 questions of second 10: price 189.0
# > 64 questions of second 10: price 189.2
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    duckdb==2.0.1 || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
import duckdb

database = duckdb.connect()
database.execute("set threads = 1")
database.execute("create table questions as select range as second from range(1000)")
database.execute(
    "create table ticks as"
    " select range // 3 as second, 189.0 + (range % 3) / 10 as price from range(3000)"
)


def ask(name, questions, second):
    rows = database.execute(
        f"select q.second, price from ({questions}) q asof join ticks t on q.second >= t.second"
    ).fetchall()
    prices = sorted({price for asked, price in rows if asked == second})
    print(f"{name}: price", ", ".join(f"{price:.1f}" for price in prices))


ask("all 1,000 questions", "from questions", 500)
ask("where second = 500", "from questions where second = 500", 500)
ask("where second between 450 and 550", "from questions where second between 450 and 550", 500)
ask("where second % 2 = 0", "from questions where second % 2 = 0", 500)
database.execute("set asof_loop_join_threshold = 0")
ask("where second % 2 = 0, threshold 0", "from questions where second % 2 = 0", 500)
database.execute("reset asof_loop_join_threshold")
for count in (63, 64):
    ask(f"{count} questions of second 10", f"select 10 as second from range({count})", 10)
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: which of equal rows DuckDB's ASOF join takes (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
