#!/usr/bin/env bash
# Library: confluent-kafka 2.16.1 (Python), its schema registry client.
# Behaviour: an answer with status 200 that holds no schema (a proxy's or a log-in page's JSON, here
# `{"hello": "world"}`) is taken for a schema without a text, and kept for as long as the client
# lives: once the registry answers again, it is not asked. Without `timeout` a call never ends.
# Why it matters to a feature store: a worker that met one such answer fails on every message of
# that schema until it is restarted, although the registry is well.
# Output seen on 2026-11-29:
# > while a proxy answers: None
# > when the registry answers again: None
# > a new client: "long"
# > requests: 2
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --disable-pip-version-check \
    'confluent-kafka[schemaregistry]==2.16.1' || exit 2

"$work/venv/bin/python" - >"$work/seen" <<'END' || true
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from confluent_kafka.schema_registry import SchemaRegistryClient

answer, requests = {"hello": "world"}, []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        requests.append(self.path)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Handler)
Thread(target=server.serve_forever, daemon=True).start()
settings = {"url": f"http://127.0.0.1:{server.server_port}"}
client = SchemaRegistryClient(settings)
print("while a proxy answers:", client.get_schema(7).schema_str)
answer = {"schema": '"long"'}
print("when the registry answers again:", client.get_schema(7).schema_str)
print("a new client:", SchemaRegistryClient(settings).get_schema(7).schema_str)
print("requests:", len(requests))
END

cat "$work/seen"
sed -n 's/^# > //p' "$0" >"$work/expected"
if ! diff "$work/expected" "$work/seen"; then
    echo "CHANGED: what the client keeps of an answer without a schema (< recorded, > now)"
    exit 1
fi
echo "unchanged"
