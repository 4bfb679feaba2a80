"""Hooks of schemathesis: of what it makes up, some names are those of real features and entities.

Without them every valid request would be about a feature that does not exist. What is not valid is
left as it is.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import strategies as st

KINDS: list[tuple[list[str], dict[str, str]]] = [
    (["current_price", "volatility", "price_sma_5@1.0.0", "volume_sma_10"], {"symbol": "AAPL"}),
    (["position_size", "position_multiplier"], {"portfolio": "P1", "symbol": "AAPL"}),
    (["portfolio_exposure", "portfolio_exposure_net@1.0.0"], {"portfolio": "P1"}),
]
FEATURES = [name for names, _ in KINDS for name in names]


def is_list_of_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 1 <= len(value) <= 100
        and all(isinstance(one, str) and 1 <= len(one) <= 128 for one in value)
    )


def about_one(body: dict[str, Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(KINDS).flatmap(
        lambda kind: st.lists(st.sampled_from(kind[0]), min_size=1).map(
            lambda features: {**body, "features": features, "entity": kind[1]}
        )
    )


def about_many(body: dict[str, Any]) -> st.SearchStrategy[Any]:
    kinds = st.lists(st.sampled_from(KINDS), min_size=1, max_size=4)
    return kinds.map(
        lambda several: {
            **body,
            "features": [name for names, _ in several for name in names],
            "entities": [entity for _, entity in several],
        }
    )


def is_entity(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and 1 <= len(value) <= 8
        and all(isinstance(text, str) and 1 <= len(text) <= 99 for text in value.values())
    )


@schemathesis.hook
def flatmap_body(context: Any, body: Any) -> st.SearchStrategy[Any]:
    unchanged = st.just(body)
    if not isinstance(body, dict) or not is_list_of_names(body.get("features")):
        return unchanged
    if body.keys() == {"features", "entity"} and is_entity(body["entity"]):
        return unchanged | about_one(body)
    entities = body.get("entities")
    if body.keys() == {"features", "entities"} and isinstance(entities, list) and entities:
        return unchanged | about_many(body) if all(map(is_entity, entities)) else unchanged
    return unchanged


@schemathesis.hook
def flatmap_path_parameters(context: Any, path_parameters: Any) -> st.SearchStrategy[Any]:
    unchanged = st.just(path_parameters)
    if not path_parameters or not isinstance(path_parameters.get("name"), str):
        return unchanged
    return unchanged | st.sampled_from(FEATURES).map(lambda name: {"name": name})
