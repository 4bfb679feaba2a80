"""The paths of a source as a tree: the names that a message may have at each depth.

data.s, data.p, e    ─►    the root ─┬─ data ─┬─ s
                                     └─ e     └─ p
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipelines.runtime.array_types import Bytes, Int64s
from registry.paths import Part, Path

ROOTS = 2
NOTHING = -1
"""Instead of a node or a role."""


class Nodes(NamedTuple):
    """A tree as columns by node, in which the children of a node are numbered in a row."""

    names: Bytes
    """The names of nodes, end to end."""
    name_start: Int64s
    name_end: Int64s
    parent: Int64s
    first_child: Int64s
    last_child: Int64s
    """By node: its children are from the first up to, not including, the last."""
    role: Int64s
    """By node: its first role, or `NOTHING`."""
    next_role: Int64s
    """By role: the next one of the same node, or `NOTHING`."""


class PathTree:
    """A tree of the paths in a tick, whose root is node 0, and around it, from node 1."""

    def __init__(self) -> None:
        self._names = [b"", b""]
        self._parent = [NOTHING, NOTHING]
        self._children: list[dict[bytes, int]] = [{}, {}]
        self._roles: list[list[int]] = [[], []]
        self._last_role = 0

    def add(self, path: Path, role: int) -> int:
        """Give the value at a path a role; returns its node."""
        node = 0 if path.part is Part.TICK else 1
        for name in map(str.encode, path.names):
            children = self._children[node]
            if name not in children:
                children[name] = len(self._names)
                self._names.append(name)
                self._parent.append(node)
                self._children.append({})
                self._roles.append([])
            node = children[name]
        self._roles[node].append(role)
        self._last_role = max(self._last_role, role)
        return node

    def numbered(self) -> tuple[Nodes, list[int]]:
        """The whole tree, breadth first, and the number in it of each node that `add` returned."""
        order = [0, 1]
        for node in order:
            order.extend(self._children[node].values())
        number = [0] * len(order)
        for new, node in enumerate(order):
            number[node] = new
        names = [self._names[node] for node in order]
        ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
        counts = [len(self._children[node]) for node in order]
        last = np.cumsum(counts, dtype=np.int64) + ROOTS
        first = [(self._roles[node] or [NOTHING])[0] for node in order]
        following = np.full(1 + self._last_role, NOTHING)
        for roles in self._roles:
            following[roles[:-1]] = roles[1:]
        nodes = Nodes(
            names=np.frombuffer(bytearray(b"".join(names)), np.uint8),
            name_start=ends[:-1],
            name_end=ends[1:],
            parent=np.array(
                [NOTHING if n < ROOTS else number[self._parent[n]] for n in order], np.int64
            ),
            first_child=last - counts,
            last_child=last,
            role=np.array(first, np.int64),
            next_role=following,
        )
        return nodes, number
