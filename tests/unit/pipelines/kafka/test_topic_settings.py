"""Which settings of a topic lose ticks before a worker sees them."""

from __future__ import annotations

import pytest

from pipelines.kafka.topic_settings import NO_LIMIT_MS, remarks_on

TYPE, AFTER = "message.timestamp.type", "message.timestamp.after.max.ms"
BEFORE = "message.timestamp.before.max.ms"
DIFFERENCE = "message.timestamp.difference.max.ms"
NONE = str(NO_LIMIT_MS)


@pytest.mark.parametrize(
    ("settings", "limits"),
    [
        ({TYPE: "CreateTime", AFTER: "3600000", BEFORE: NONE}, [f"{AFTER}=3600000"]),
        ({TYPE: "CreateTime", AFTER: NONE, BEFORE: "86400000"}, [f"{BEFORE}=86400000"]),
        ({TYPE: "CreateTime", AFTER: "1", BEFORE: "2"}, [f"{AFTER}=1", f"{BEFORE}=2"]),
        ({TYPE: "CreateTime", AFTER: NONE, BEFORE: NONE}, []),
        ({TYPE: "CreateTime", DIFFERENCE: "3600000"}, [f"{DIFFERENCE}=3600000"]),
        ({TYPE: "CreateTime", AFTER: NONE, BEFORE: NONE, DIFFERENCE: NONE}, []),
        ({TYPE: "CreateTime"}, []),
        ({TYPE: "LogAppendTime", AFTER: "3600000", BEFORE: NONE}, []),
        ({}, []),  # Tansu
    ],
)
def test_a_limit_on_the_producers_time_is_told(settings: dict[str, str], limits: list[str]) -> None:
    remarks = remarks_on("bars", settings)
    assert len(remarks) == bool(limits)
    for remark in remarks:
        assert remark.startswith("bars loses ticks")
        assert f"({', '.join(limits)})" in remark
        assert "LogAppendTime" in remark
