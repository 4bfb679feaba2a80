#!/usr/bin/env bash
# Library: numba 0.68.1 (llvmlite 0.50.0, numpy 2.4.6), Python 3.11 or newer on Linux. Takes a minute.
# Behaviour: a function that was compiled ahead for a read-only array also takes a writable one, which
# is safe, and so does one for a plain tuple with a read-only array in it. For a NamedTuple with the
# same array it does not: the writable array is refused as another type, at the call, with a TypeError.
# Why it matters to a feature store: columns travel as NamedTuples, and what comes from bytes
# (`np.frombuffer`) is read-only while what was computed is not. A function with an explicit signature
# then works with one and fails with the other, in production and not when it is compiled.
# Output seen on 2026-11-29:
# > an array: read-only 3, writable 3
# > a tuple: read-only 3, writable 3
# > a NamedTuple: read-only 3, writable TypeError
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6 || exit 2

cat >"$work/take.py" <<'EOF'
from typing import NamedTuple

import numpy as np
from numba import int64, njit, types, typeof


class Column(NamedTuple):
    values: np.ndarray


writable = np.arange(3, dtype=np.uint8)
read_only = np.frombuffer(bytes(3), np.uint8)
array = types.Array(types.uint8, 1, "C", readonly=True)


@njit(int64(array))
def of_array(values):
    return values.shape[0]


@njit(int64(types.Tuple((array,))))
def of_tuple(columns):
    return columns[0].shape[0]


@njit(int64(typeof(Column(read_only))))
def of_named_tuple(column):
    return column.values.shape[0]


def taken(function, argument):
    try:
        return function(argument)
    except TypeError as error:
        return type(error).__name__


for name, function, make in (
    ("an array", of_array, lambda values: values),
    ("a tuple", of_tuple, lambda values: (values,)),
    ("a NamedTuple", of_named_tuple, Column),
):
    found = [taken(function, make(values)) for values in (read_only, writable)]
    print(f"{name}: read-only {found[0]}, writable {found[1]}")
EOF

found=$("$work/venv/bin/python" "$work/take.py")
echo "$found"
expected='an array: read-only 3, writable 3
a tuple: read-only 3, writable 3
a NamedTuple: read-only 3, writable TypeError'
[ "$found" = "$expected" ] || { echo "that is not what was seen" >&2; exit 1; }
