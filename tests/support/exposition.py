"""What alert rules and dashboards name, and what a page of metrics has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).parents[2] / "compose/monitoring"
METRIC = re.compile(r"\b(?:tickwell|process)_[a-z0-9_]+")
ENDINGS = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
"""What the samples of a metric add to its name, by its type."""


def dashboard_queries() -> dict[str, str]:
    """The queries of the dashboard, by the title of the panel and a letter."""
    file = MONITORING / "grafana/dashboards/tickwell.json"
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in json.loads(file.read_text())["panels"]
        for target in panel.get("targets", ())
    }


def named_metrics() -> set[str]:
    """The metrics that the alert rules and the dashboard name."""
    rules = (MONITORING / "alerts.yaml").read_text()
    return set(METRIC.findall("\n".join((rules, *dashboard_queries().values()))))


def exposed_metrics(text: str) -> set[str]:
    """The names of the samples that a page has, or could have: some begin with an event."""
    return {
        family.name + ending
        for family in text_string_to_metric_families(text)
        for ending in ENDINGS.get(family.type, ("",))
    }
