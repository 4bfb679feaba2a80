#!/usr/bin/env bash
# Library: Apache Arrow's CSV reader (Python package `pyarrow`) 26.0.1.
# Behaviour: a streaming reader, `pyarrow.csv.open_csv`, has read 32 blocks of the file and more
# when it returns the first batch, also with `use_threads=False`. Neither `ReadOptions` nor the
# reader has an option for it; the size of a block is the only way to bound its memory.
# Why it matters to a feature store: files of ticks are large, and a reader that streams is chosen
# for flat memory. With blocks of 8 MiB, to read fast, it holds 256 MiB that nobody asked for.
# Output seen on 2026-11-28 (blocks of 64 KiB, one batch taken):
# > with threads: one batch is one block: True, at least 32 are read: True
# > without threads: one batch is one block: True, at least 32 are read: True
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    pyarrow==26.0.1 || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
import io
import time

import pyarrow as pa
import pyarrow.csv as csv

BLOCK = 1 << 16
text = b"price,size,ts\n" + b"189.23,100,1700000000123\n" * 500_000


class Counted(io.RawIOBase):
    """A file that counts the bytes that are read of it."""

    def __init__(self):
        self.file, self.count = io.BytesIO(text), 0

    def readable(self):
        return True

    def readinto(self, buffer):
        size = self.file.readinto(buffer)
        self.count += size
        return size

    def read(self, size=-1):
        data = self.file.read(size)
        self.count += len(data)
        return data


for name, threads in (("with threads", True), ("without threads", False)):
    file = Counted()
    options = csv.ReadOptions(block_size=BLOCK, use_threads=threads)
    with csv.open_csv(pa.PythonFile(file, mode="r"), read_options=options) as reader:
        batch = reader.read_next_batch()
        time.sleep(1)  # whatever it reads ahead is read by then
        one = batch.num_rows * 25 <= BLOCK
        more = file.count >= 32 * BLOCK
        print(f"{name}: one batch is one block: {one}, at least 32 are read: {more}")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: how far Arrow's CSV reader reads ahead (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
