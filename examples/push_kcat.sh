#!/usr/bin/env bash
# Push a tick with kcat. Usage: push_kcat.sh MINE 189.23
set -euo pipefail
printf '%s|{"symbol": "%s", "price": %s, "ts": %s}\n' "$1" "$1" "$2" "$(date +%s000)" |
  kcat -P -b "$TICKWELL_KAFKA" -t ticks.price -K '|' -X partitioner=murmur2_random
