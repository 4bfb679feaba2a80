#!/usr/bin/env bash
# Library: csp 0.19.1 (Point72's reactive stream library).
# Behaviour: `recalc=` of csp.stats computes a window from scratch, to clear the drift of its
# running totals. In a full window that is counted in ticks the recalculation subtracts one tick
# twice: sum, mean and deviation are wrong from there on. Windows counted in time are right.
# Why it matters to a feature store: the cure for a tiny drift takes a quarter off a sum and
# turns a deviation into 0, with no error. A comparison with csp leaves `recalc` out.
# Output seen on 2026-11-28 (twelve prices, one a second, `recalc` at the seventh):
# > mean, 4 ticks, no recalc: 101.50 102.75 103.50 104.75 106.00 106.25 107.75 108.50 109.00
# > mean, 4 ticks, recalc: 101.50 102.75 103.50 104.75 107.00 107.33 109.33 110.33 111.00
# > sum, 4 ticks, no recalc: 406.00 411.00 414.00 419.00 424.00 425.00 431.00 434.00 436.00
# > sum, 4 ticks, recalc: 406.00 411.00 414.00 419.00 321.00 322.00 328.00 331.00 333.00
# > stddev, 4 ticks, no recalc: 1.29 1.71 1.29 2.50 1.83 1.71 1.71 2.38 2.16
# > stddev, 4 ticks, recalc: 1.29 1.71 1.29 2.50 0.00 0.00 0.00 0.00 0.00
# > stddev, 4 seconds, no recalc: 1.71 1.29 2.50 1.83 1.71 1.71 2.38 2.16
# > stddev, 4 seconds, recalc: 1.71 1.29 2.50 1.83 1.71 1.71 2.38 2.16
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    csp==0.19.1 numpy==2.4.6 || exit 2

# csp reads the source of a graph, so the program is a file.
cat >"$work/finding.py" <<'END'
from datetime import datetime, timedelta

import csp
from csp import stats

START = datetime(2026, 11, 2, 14, 30)
SECOND = timedelta(seconds=1)
PRICES = [100.0, 101.0, 103.0, 102.0, 105.0, 104.0, 108.0, 107.0, 106.0, 110.0, 111.0, 109.0]


@csp.graph
def window(function: str, interval: object, recalc: bool):
    prices = csp.curve(float, [(START + i * SECOND, price) for i, price in enumerate(PRICES)])
    more = {"recalc": csp.curve(bool, [(START + 6 * SECOND, True)])} if recalc else {}
    feature = getattr(stats, function)(prices, interval=interval, min_window=interval, **more)
    csp.add_graph_output("feature", feature)


for function, interval, unit in (
    ("mean", 4, "4 ticks"),
    ("sum", 4, "4 ticks"),
    ("stddev", 4, "4 ticks"),
    ("stddev", 4 * SECOND, "4 seconds"),
):
    for recalc in (False, True):
        run = csp.run(window, function, interval, recalc, starttime=START, endtime=60 * SECOND)
        values = " ".join(f"{value:.2f}" for _, value in run["feature"])
        print(f"{function}, {unit}, {'recalc' if recalc else 'no recalc'}: {values}")
END
"$work/venv/bin/python" "$work/finding.py" >"$work/seen" || true

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: csp's recalc in windows counted in ticks (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
