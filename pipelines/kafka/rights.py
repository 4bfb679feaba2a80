"""What the ACLs of a cluster do not allow, as an error that names the right and its resource.

A broker says only that something is not authorized. Which operation was asked for, and on what, is
known where it was asked.
"""

from __future__ import annotations

import aiokafka.errors
from confluent_kafka import KafkaError

from pipelines.errors import BrokerRefused, BrokerUnavailable, RightMissing

REFUSALS = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)


def topic(name: str) -> str:
    """A topic as an error names it."""
    return f"the topic {name}"


def group(name: str) -> str:
    """A consumer group as an error names it."""
    return f"the group {name}"


def refusal(servers: str, error: KafkaError, operation: str, resource: str) -> BrokerUnavailable:
    """What to raise for an error of librdkafka, if `operation` on `resource` was asked for."""
    if error.code() in REFUSALS:
        return RightMissing(servers, operation, resource)
    # the errors that librdkafka itself has are below those of brokers, of which -1 is the least
    told = BrokerRefused if error.code() >= KafkaError.UNKNOWN else BrokerUnavailable
    return told(servers, f"{resource}: {error.str()}")


def refused_to_read(error: BaseException, servers: str, member_of: str = "") -> RightMissing | None:
    """What an error of aiokafka means to a consumer; None where it is about no right.

    `member_of` is its group, "" for none. aiokafka names a topic in some errors, in some not, and
    may hide an error in another one that it is the cause of.
    """
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, aiokafka.errors.GroupAuthorizationFailedError):
            return RightMissing(servers, "Read", group(member_of))
        if isinstance(found, aiokafka.errors.TopicAuthorizationFailedError):
            return RightMissing(servers, "Read", _topics(found))
        found = found.__cause__
    return None


def _topics(error: BaseException) -> str:
    """The topics that the first argument names: one, a set of them, or one with a partition."""
    given = error.args[0] if error.args else ""
    names = [given] if isinstance(given, str) else sorted(given)
    named = ", ".join(name.partition("[")[0] for name in names)
    return topic(named) if named else "a topic of its sources"
