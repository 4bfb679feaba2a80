"""What is counted of the tiers, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.stores.hot import HotStore
from serving.stores.row_store import Tier


def hot_families(store: HotStore) -> Callable[[], Iterator[Metric]]:
    """Makes the metrics of a hot tier and what is behind it."""

    def families() -> Iterator[Metric]:
        rows = CounterMetricFamily("tickwell_rows", "Rows that requests asked for")
        rows.add_metric([], store.counts.rows)
        asked = CounterMetricFamily(
            "tickwell_tier_rows_asked", "Rows that a tier was asked for", labels=["tier"]
        )
        found = CounterMetricFamily(
            "tickwell_tier_rows_found", "Rows that it answered; of hot, believed", labels=["tier"]
        )
        for tier in (Tier.HOT, Tier.WARM, Tier.COLD):
            asked.add_metric([tier.name.lower()], store.counts.asked[tier])
            found.add_metric([tier.name.lower()], store.counts.found[tier])
        promotions = CounterMetricFamily(
            "tickwell_hot_promotions", "Rows to be brought into hot", labels=["outcome"]
        )
        for outcome, count in store.promotion.outcomes.items():
            promotions.add_metric([outcome.value], count)
        believed = GaugeMetricFamily("tickwell_hot_believed", "1 while hot is believed")
        believed.add_metric([], float(store.trust.is_given))
        yield from (rows, asked, found, promotions, believed)

    return families
