"""A type of Kafka's protocol that aiokafka lacks."""

from __future__ import annotations

from io import BytesIO

from aiokafka.protocol.types import AbstractType


class Uuid(AbstractType[bytes]):
    """16 bytes."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)
