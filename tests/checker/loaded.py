"""Rows that were loaded from files, held against the lines of the file."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from tests.checker.arithmetic import STATUS, explain
from tests.checker.findings import Findings
from tests.checker.packed import shown
from tests.checker.rows import Kept, Walked
from tests.checker.training_sets import window_at

ROWS = """
SELECT event_time, sequence, -schema_id, fields, features, status, known_at
FROM tickwell.feature_rows WHERE entity = %s AND schema_id = ANY (%s) AND revision = 0
ORDER BY event_time, sequence
"""


def check_loaded(
    connection: Any, file: Path, delay_ns: int, walked: Walked, findings: Findings
) -> None:
    """Prices, in the order of their times: each line is one row, and no other ticks are in it."""
    ticks: dict[str, list[Kept]] = {}
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            of_symbol = ticks.setdefault(line["symbol"], [])
            time = int(line["ts"]) * 10**6
            same = of_symbol and of_symbol[-1].event_time == time
            fields = (float(line["price"]), float(line["size"] or math.nan))
            sequence = of_symbol[-1].sequence + 1 if same else 0
            known = time + delay_ns
            of_symbol.append(Kept(time, sequence, known, "trade", fields, time, int(line["seq"])))
    schemas = [-one for one in walked.source.schemas]
    for symbol, expected in ticks.items():
        with connection.cursor() as cursor:
            cursor.execute(ROWS, (symbol, schemas))
            found = cursor.fetchall()
        if len(found) != len(expected):
            told = f"{shown(symbol)} has {len(found)} rows of {len(expected)} lines"
            findings.differ("load", told)
            continue
        for number, (row, one) in enumerate(zip(found, expected, strict=True)):
            time, sequence, schema, _, features, status, known = row
            findings.count("loaded rows")
            if (time, sequence, known) != (one.event_time, one.sequence, one.known_at):
                findings.differ("load", f"{shown(symbol)}: {row[:2]} of {known}, must be {one}")
                continue
            window, _ = window_at(expected, number, walked.source.depth)
            for feature, value, code in zip(
                walked.source.schemas[schema], features, bytes(status), strict=True
            ):
                wrong, _ = explain(feature, window, value, STATUS.get(code, "?"))
                if wrong is not None:
                    findings.differ("load", f"{shown(symbol)} {time} {feature.name}: {wrong}")
