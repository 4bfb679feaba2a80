"""Which arm of an experiment an entity, or a consumer, has.

It follows from the experiment's name and the subject's alone, in every process and in a training
set: SHA-256 of both gives a point on the line from 0 to 1, which the arms divide by their weights,
in their order. So a larger weight of the first arm moves as many subjects as it is larger, all of
them to that arm; a remainder of the hash by the number of arms would move most subjects.
"""

from __future__ import annotations

import hashlib

from registry.definitions import Arm, Experiment

POINT_BYTES = 8
"""Bytes of the hash that are the point."""


def arm_of(experiment: Experiment, subject: str) -> Arm:
    """The arm of a subject: an entity as `entity_id` names it, or a consumer by its name."""
    hashed = hashlib.sha256(f"{experiment.name}\0{subject}".encode()).digest()
    point = int.from_bytes(hashed[:POINT_BYTES])
    total = sum(arm.weight for arm in experiment.arms)
    until = 0
    for arm in experiment.arms:
        until += arm.weight
        if point * total < until << (8 * POINT_BYTES):
            return arm
    raise AssertionError("the point is less than 1")
