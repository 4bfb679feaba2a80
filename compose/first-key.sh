#!/usr/bin/env bash
# Makes the first API key, and writes it to compose/secrets/api_key. An existing one is left as it is.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
if [ -s secrets/api_key ]; then
  echo "compose/secrets/api_key has a key already" >&2
  exit 0
fi
# The stores are started, and brought up to date, before the command runs; all but the key goes to stderr.
docker compose -f compose.yaml run --build --rm -T keys create "${1:-first}" --scope read > secrets/api_key.new
mv secrets/api_key.new secrets/api_key
chmod 0644 secrets/api_key # as those of secrets.sh
