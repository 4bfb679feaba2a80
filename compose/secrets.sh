#!/usr/bin/env bash
# Writes the secrets that compose.yaml names. An existing secret is left as it is.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
chmod 0700 secrets
new() { [ -s "secrets/$1" ] || printf '%s' "$2" > "secrets/$1"; }
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
new redis_password "$(random)"
new postgres_password "$(random)"
new grafana_password "$(random)"
redis=$(cat secrets/redis_password)
postgres=$(cat secrets/postgres_password)
new redis_url "redis://:$redis@redis-warm:6379/0"
new redis_hot_url "redis://:$redis@redis-hot:6379/0"
new postgres_url "postgresql://postgres:$postgres@postgres:5432/tickwell"
# Containers run as other users than yours, so the files are readable by all; the folder is closed
# to every other user of this machine.
chmod 0644 secrets/*
