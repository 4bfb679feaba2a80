"""Where a feature comes from and what depends on it.

    topic ──► field ──► version ──► derived version ──► set ──► model
                        └──► training set

All of it follows from what is recorded: a source names its topic, an expression its fields, a
derived version, a set and a training set what they pin. Models say themselves which set they read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from registry.definitions import Catalog
from registry.language.canonical import fields
from registry.lifecycle.states import set_named, version_of, versions_of

Kind = Literal["topic", "field", "version", "set", "training set", "model"]


class Node(Struct, frozen=True, order=True):
    """One thing in a lineage: a topic by its name, a field as `source.field`, the others by ref."""

    kind: Kind
    name: str


class Edge(Struct, frozen=True):
    """What is `used` by what: the values of `by` depend on it."""

    used: Node
    by: Node


class Lineage(Struct, frozen=True):
    """Everything that the `roots` come from, and everything that depends on them.

    Both lists are in the order of the picture above, and hold each edge once.
    """

    roots: tuple[Node, ...]
    upstream: tuple[Edge, ...]
    downstream: tuple[Edge, ...]


End = Callable[[Edge], Node]
"""One of the two ends of an edge."""

ORDER: Sequence[Kind] = ("topic", "field", "version", "set", "training set", "model")


def lineage_of(
    catalog: Catalog,
    models: Mapping[str, Sequence[str]],
    text: str,
    training_sets: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Lineage:
    """The lineage of a feature (all its versions), of one version, or of a set.

    `models` has the models that read each set, `training_sets` the versions that are in each
    training set. Raises `UnknownVersion`.
    """
    roots = _roots(catalog, text)
    edges = list(edges_of(catalog, models))
    for name, versions in training_sets.items():
        edges += (Edge(Node("version", ref), Node("training set", name)) for ref in versions)
    upstream = _reached(roots, edges, lambda edge: edge.by, lambda edge: edge.used)
    downstream = _reached(roots, edges, lambda edge: edge.used, lambda edge: edge.by)
    return Lineage(tuple(roots), tuple(upstream), tuple(downstream))


def edges_of(catalog: Catalog, models: Mapping[str, Sequence[str]]) -> Iterable[Edge]:
    """All edges of what is recorded and not retired."""
    for feature in catalog.features.values():
        if catalog.is_retired(feature.ref):
            continue
        version = Node("version", feature.ref)
        if feature.source is not None:
            topic = Node("topic", catalog.sources[feature.source].topic)
            for name in fields(feature):
                field = Node("field", f"{feature.source}.{name}")
                yield Edge(topic, field)
                yield Edge(field, version)
        for part in feature.parts:
            yield Edge(Node("version", part), version)
    for ref, one in catalog.sets.items():
        if not catalog.is_retired(ref):
            for pinned in one.features:
                yield Edge(Node("version", pinned), Node("set", ref))
            for model in models.get(ref, ()):
                yield Edge(Node("set", ref), Node("model", model))


def _roots(catalog: Catalog, text: str) -> list[Node]:
    if text.startswith("set:"):
        return [Node("set", set_named(catalog, text))]
    if "@" in text:
        return [Node("version", version_of(catalog, text).ref)]
    versions = versions_of(catalog, text)
    if not versions:
        version_of(catalog, text)  # raises
    return [Node("version", one.ref) for one in versions]


def _reached(roots: list[Node], edges: list[Edge], begin: End, end: End) -> list[Edge]:
    """The edges that lead on from `roots`, each once; `begin` and `end` say which way."""
    leading: dict[Node, dict[Edge, None]] = {}
    for edge in edges:
        leading.setdefault(begin(edge), {})[edge] = None
    found: dict[Edge, None] = {}
    waiting = list(roots)
    while waiting:
        for edge in leading.get(waiting.pop(), ()):
            if edge not in found:
                found[edge] = None
                waiting.append(end(edge))
    return sorted(found, key=lambda edge: (ORDER.index(edge.used.kind), edge.used, edge.by))
