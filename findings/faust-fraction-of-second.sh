#!/usr/bin/env bash
# Library: Faust 0.15.3 (Python package `faust-streaming`).
# Behaviour: a record's datetime field takes the digits after the decimal point as a count of
# microseconds. `.123Z` becomes 123 us instead of 123 ms and `.5Z` 5 us; only six digits are
# right. Nine digits are refused. Times within one second come out in the wrong order.
# Why it matters to a feature store: JavaScript, Java and many feeds write milliseconds. Windows
# and as-of joins by such a field are off by up to a second, with no error.
# Output seen on 2026-11-28 (each stamp is of 2026-11-02T14:30:00):
# > .5Z: 5 us
# > .25Z: 25 us
# > .123Z: 123 us
# > .123000Z: 123000 us
# > .123000000Z: ValueError: microsecond must be in 0..999999
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    faust-streaming==0.15.3 mode-streaming==0.7.1 aiokafka==0.14.0 || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
from datetime import datetime

import faust


class Tick(faust.Record, coerce=True, serializer="json"):
    time: datetime
    price: float


for fraction in (".5Z", ".25Z", ".123Z", ".123000Z", ".123000000Z"):
    message = f'{{"time": "2026-11-02T14:30:00{fraction}", "price": 189.0}}'
    try:
        print(f"{fraction}: {Tick.loads(message.encode()).time.microsecond} us")
    except ValueError as error:
        print(f"{fraction}: ValueError: {error}")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: how Faust reads a fraction of a second (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
