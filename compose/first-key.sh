#!/usr/bin/env bash
# Makes the first API key, and writes it to compose/secrets/api_key. One that the database knows is left as it
# is; one that it does not know, as after `docker compose down -v`, is replaced: no server would take it.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
name="${1:-first}"
file=secrets/api_key

# The stores are started, and brought up to date, before the command runs; all but its answer goes to stderr.
keys() { docker compose -f compose.yaml run --build --rm -T keys "$@" < /dev/null; }
sha256() { if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi; }

recorded=$(keys list --json)
if [ -s "$file" ]; then
  # a key is recorded by the beginning of its SHA-256
  fingerprint=$(tr -d '\n' < "$file" | sha256 | cut -c 1-12)
  if grep -qF "\"fingerprint\": \"$fingerprint\"" <<< "$recorded"; then
    echo "compose/secrets/api_key has a key already, which the server takes. For another one revoke it" \
      "(docker compose -f compose/compose.yaml run --rm -T keys revoke $name) and run this again" >&2
    exit 0
  fi
  echo "the database does not know the key in compose/secrets/api_key: it is a new one, or the key was revoked" >&2
fi
if grep -qF "\"name\": \"$name\"" <<< "$recorded"; then
  echo "the database has a key $name, whose text is not in compose/secrets/api_key. Write it there, or make one of" \
    "another name (compose/first-key.sh NAME), or revoke it and run this again:" \
    "docker compose -f compose/compose.yaml run --rm -T keys revoke $name" >&2
  exit 1
fi
keys create "$name" --scope read > "$file.new"
mv "$file.new" "$file"
chmod 0644 "$file" # as those of secrets.sh
