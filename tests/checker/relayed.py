"""Rejected ticks as they were published: each at least once, as it is, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from uuid import UUID

from tests.checker.findings import Findings
from tests.checker.topics import Kafka, Topic
from tests.oracle.features import Rejected

Digest = bytes


@dataclass
class Relayed:
    """By key (`topic id/partition/offset/index`) what was published, and how often."""

    findings: Findings
    published: dict[str, Digest] = field(default_factory=dict)
    copies: int = 0
    _expected: set[str] = field(default_factory=set)

    def read(self, kafka: Kafka, topic: Topic) -> None:
        """Take in the whole topic of rejected ticks."""
        for message in kafka.messages(topic):
            key = (message.record.key or b"").decode("utf-8", "replace")
            digest = _digest(message.headers.get("reason", ""), message.record.value)
            self.copies += 1
            if self.published.setdefault(key, digest) != digest:
                self.findings.differ("relayed twice, differently", key)

    def expect(self, topic: Topic, found: Rejected, value: bytes | None) -> None:
        """A rejected tick must be there."""
        partition, offset, index = found.origin
        key = f"{UUID(bytes=topic.topic_id)}/{partition}/{offset}/{index}"
        self._expected.add(key)
        digest = self.published.get(key)
        place = f"{topic.name}[{partition}] offset {offset}/{index}"
        if digest is None:
            self.findings.differ("not relayed", f"{place}: {found.reason}")
        elif digest != _digest(found.reason, value):
            description = f"{place}: not {found.reason} {value!r:.80}"
            self.findings.differ("relayed differently", description)

    def end(self, topics: list[Topic]) -> None:
        """Nothing of these topics may be there that no tick explains."""
        own = {str(UUID(bytes=topic.topic_id)) for topic in topics}
        self.findings.count("relayed", len(self._expected & self.published.keys()))
        self.findings.count("relayed, with copies", self.copies)
        for key in self.published.keys() - self._expected:
            if key.split("/")[0] in own:
                self.findings.differ("relayed without a tick", key)


def _digest(reason: str, value: bytes | None) -> Digest:
    digest = blake2b(reason.encode(), digest_size=16)
    digest.update(b"\0" if value is None else b"\1" + value)
    return digest.digest()
