"""Each alert says what to do and where that is explained, is tried, and stands in the README."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.pages import anchors, section

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
MONITORING = ROOT / "compose/monitoring"
ALERT = re.compile(r"^      - alert: (\w+)$", re.MULTILINE)
PARTS = ("expr", "for", "labels: { severity", "summary", "description", "readme")


def alerts() -> dict[str, str]:
    """The text of each alert, by its name."""
    _, *found = ALERT.split((MONITORING / "alerts.yaml").read_text())
    return dict(zip(found[::2], found[1::2], strict=True))


def test_every_alert_is_complete() -> None:
    for name, text in alerts().items():
        counts = {part: text.count(f" {part}: ") for part in PARTS}
        assert counts == dict.fromkeys(PARTS, 1), name
        assert re.search(r"severity: (critical|warning) }", text), name


def test_every_alert_names_a_chapter_that_exists() -> None:
    for name, text in alerts().items():
        page, anchor = re.findall(r"readme: (\S+)#(\S+)$", text, re.MULTILINE)[0]
        assert anchor in anchors(ROOT / page), name


def test_every_alert_is_seen_to_fire() -> None:
    tried = re.findall(r'alertname="(\w+)"', (MONITORING / "alerts_test.yaml").read_text())
    assert set(tried) == set(alerts())


def test_every_alert_is_in_the_readme() -> None:
    rows = re.findall(r"^\| `(Tickwell\w+)` \| (\w+) \|", section(README, "## Watching it"), re.M)
    severities = {name: re.findall(r"severity: (\w+)", text)[0] for name, text in alerts().items()}
    assert rows == list(severities.items())
