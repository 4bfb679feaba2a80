#!/usr/bin/env bash
# Library: Daft 0.7.26 (Python package `daft`).
# Behaviour: when an ASOF join meets a left column of microseconds and a right one of
# nanoseconds, the nanoseconds are cut to microseconds before they are compared, without a word.
# A backward join then takes a row that lies up to 999 ns in the future. With nanoseconds on both
# sides it is right.
# Why it matters to a feature store: labels are often stamped in microseconds and ticks in
# nanoseconds. A point-in-time join that looks ahead trains on what nobody could know.
# Output seen on 2026-11-28 (a question at T; rows 1,000 ns before T and 500 ns after it):
# > question in us, rows in ns: the row of T + 500 ns
# > question in ns, rows in ns: the row of T - 1000 ns
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    daft==0.7.26 numpy==2.4.6 pyarrow==25.0.1 || exit 2

DO_NOT_TRACK=true "$work/venv/bin/python" - >"$work/seen" <<'END' || true
import daft
import pyarrow as pa

T = 1_793_629_800_000_000_000  # 2026-11-02 14:30 UTC in ns
ticks = daft.from_arrow(
    pa.table(
        {
            "symbol": ["AAPL", "AAPL"],
            "tick_time": pa.array([T - 1000, T + 500], pa.timestamp("ns")),
            "shift": [-1000, 500],
        }
    )
)
for unit, stamp in (("us", T // 1000), ("ns", T)):
    questions = daft.from_arrow(
        pa.table({"symbol": ["AAPL"], "asked": pa.array([stamp], pa.timestamp(unit))})
    )
    joined = questions.join_asof(ticks, left_on="asked", right_on="tick_time", by="symbol")
    shift = joined.to_arrow()["shift"][0].as_py()
    sign = "-" if shift < 0 else "+"
    print(f"question in {unit}, rows in ns: the row of T {sign} {abs(shift)} ns")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: Daft's ASOF join of us with ns (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
