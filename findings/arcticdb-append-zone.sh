#!/usr/bin/env bash
# Library: ArcticDB 6.28.2 (Python package `arcticdb`), on LMDB.
# Behaviour: a symbol has one time zone, that of its newest append. Appending rows in another
# zone is taken without a word and shows the whole history in that zone; appending rows without a
# zone takes the zone off all rows, which then read as naive times.
# Why it matters to a feature store: one late file in local time changes what every earlier row
# says of itself. Days, session bounds and joins on naive times move, and no stored instant has
# changed.
# Output seen on 2026-11-28 (two rows in UTC, then one row more):
# > written in UTC: 2026-11-02 14:30:00+00:00, 2026-11-03 00:30:00+00:00
# > after a row in New York's time: 2026-11-02 09:30:00-05:00, 2026-11-02 19:30:00-05:00
# > after a row without a zone: 2026-11-02 14:30:00, 2026-11-03 00:30:00
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    arcticdb==6.28.2 pandas==2.3.3 || exit 2

"$work/venv/bin/python" - "$work/store" >"$work/seen" <<'END' || true
import sys

import arcticdb
import pandas as pd

library = arcticdb.Arctic(f"lmdb://{sys.argv[1]}").get_library("ticks", create_if_missing=True)


def ticks(*times, zone):
    return pd.DataFrame({"price": [189.0] * len(times)}, index=pd.DatetimeIndex(times, tz=zone))


def show(name):
    print(f"{name}:", ", ".join(str(time) for time in library.read("AAPL").data.index[:2]))


for name, zone in (("New York's time", "America/New_York"), ("without a zone", None)):
    library.write("AAPL", ticks("2026-11-02 14:30", "2026-11-03 00:30", zone="UTC"))
    if zone:
        show("written in UTC")
    library.append("AAPL", ticks("2026-11-03 09:30", zone=zone))
    show(f"after a row {'in ' if zone else ''}{name}")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: the zone of ArcticDB's history after an append (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
