#!/usr/bin/env bash
# Library: Apache Kafka 4.3.1 (one broker, default topic settings), clients confluent-kafka
# 2.16.1 and aiokafka 0.14.0. Needs Java 17 and Maven; gives the broker a heap of 384 MB, and
# takes one to two minutes.
# Behaviour: `message.timestamp.after.max.ms` is one hour unless it is set. One record stamped
# later than that makes the broker refuse the whole batch that the client happened to put it in,
# and both clients report the same error for every record: nothing tells which one was at fault.
# How many records are lost depends on batching. A topic with LogAppendTime takes them all.
# Why it matters to a feature store: one feed that sends Tokyo's local time as UTC (nine hours
# ahead) takes the other feeds' ticks down with it, and the same batch, sent again, is refused
# for hours.
# Output seen on 2026-11-28 (100 records to one partition, one of them stamped nine hours ahead):
# > confluent-kafka, CreateTime, one batch: 0 stored, 100 INVALID_TIMESTAMP
# > confluent-kafka, CreateTime, a batch each: 99 stored, 1 INVALID_TIMESTAMP
# > confluent-kafka, LogAppendTime, one batch: 100 stored, 0 INVALID_TIMESTAMP
# > aiokafka, CreateTime, one batch: 0 stored, 100 InvalidTimestampError
set -euo pipefail

command -v java >/dev/null || { echo "needs Java 17" >&2; exit 2; }
command -v mvn >/dev/null || { echo "needs Maven" >&2; exit 2; }
work=$(mktemp -d)
broker=
finish() {
    [ -z "$broker" ] || { kill -9 "$broker" && wait "$broker"; } 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    aiokafka==0.14.0 confluent-kafka==2.16.1 || exit 2
cat >"$work/pom.xml" <<'END'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>4.3.1</version>
    </dependency>
  </dependencies>
</project>
END
timeout 300 mvn -q -B -f "$work/pom.xml" -DoutputDirectory="$work/jars" -DincludeScope=runtime \
    org.apache.maven.plugins:maven-dependency-plugin:3.9.0:copy-dependencies >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; exit 2; }

read -r port controller < <(python3 - <<'END'
import socket

with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
    print(one.getsockname()[1], two.getsockname()[1])
END
)
cat >"$work/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$work/kafka
END
jvm=(java -Xmx384m -XX:+UseSerialGC -Djava.io.tmpdir="$work" -cp "$work/jars/*")
cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' -_ | tr -d =)
"${jvm[@]}" kafka.tools.StorageTool format --standalone -t "$cluster" \
    -c "$work/server.properties" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 2; }
"${jvm[@]}" kafka.Kafka "$work/server.properties" >"$work/log" 2>&1 &
broker=$!

timeout 120 "$work/venv/bin/python" - "127.0.0.1:$port" >"$work/seen" <<'END' || true
import asyncio
import sys
import time

from aiokafka import AIOKafkaProducer
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

RECORDS = 100
HOURS = 3_600_000
ADDRESS = sys.argv[1]
QUIET = {"bootstrap.servers": ADDRESS, "log_level": 0}
admin = AdminClient(QUIET)
NOW = int(time.time() * 1000)
STAMPS = [NOW + (9 * HOURS if i == RECORDS // 2 else 0) for i in range(RECORDS)]

deadline = time.monotonic() + 60
while True:
    try:
        admin.list_topics(timeout=1)
        break
    except KafkaException:
        if time.monotonic() > deadline:
            raise


def make(topic, kind):
    new = NewTopic(topic, 1, 1, config={"message.timestamp.type": kind})
    admin.create_topics([new])[topic].result(30)
    while topic not in admin.list_topics(timeout=10).topics:
        time.sleep(0.1)


def show(name, topic, refused, error):
    partition = TopicPartition(topic, 0)
    stored = admin.list_offsets({partition: OffsetSpec.latest()})[partition].result(10).offset
    assert stored + len(refused) == RECORDS, (stored, refused)
    assert set(refused) <= {error}, refused
    print(f"{name}: {stored} stored, {len(refused)} {error}")


def confluent(name, topic, kind, **settings):
    make(topic, kind)
    producer = Producer({**QUIET, **settings})
    refused = []
    for stamp in STAMPS:
        producer.produce(
            topic,
            b"189.0",
            timestamp=stamp,
            on_delivery=lambda error, _: refused.append(error.name()) if error else None,
        )
    producer.flush(30)
    show(f"confluent-kafka, {name}", topic, refused, "INVALID_TIMESTAMP")


async def aio(name, topic, kind):
    make(topic, kind)
    async with AIOKafkaProducer(bootstrap_servers=ADDRESS, linger_ms=1000) as producer:
        sent = [await producer.send(topic, b"189.0", timestamp_ms=stamp) for stamp in STAMPS]
        answers = await asyncio.gather(*sent, return_exceptions=True)
    refused = [type(answer).__name__ for answer in answers if isinstance(answer, Exception)]
    show(f"aiokafka, {name}", topic, refused, "InvalidTimestampError")


together = {"linger.ms": 1000}
alone = {"batch.num.messages": 1}
confluent("CreateTime, one batch", "create", "CreateTime", **together)
confluent("CreateTime, a batch each", "create-alone", "CreateTime", **alone)
confluent("LogAppendTime, one batch", "append", "LogAppendTime", **together)
asyncio.run(aio("CreateTime, one batch", "create-aio", "CreateTime"))
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: Kafka's answer to a batch with one late stamp (lines above: < recorded, > now)"
    exit 1
fi
echo "unchanged"
