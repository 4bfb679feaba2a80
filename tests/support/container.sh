#!/bin/sh
# Runs a command with what a container of ours may do: another user, no capabilities, a file system
# that is read-only but for /tmp. Needs root, and a mount namespace of its own (unshare --mount).
#
#   container.sh <directories to keep in sight> <directories to hide> <command> ...
#
# Both lists have a directory a line. What is kept stays at its path, also below what is hidden.
set -eu
kept=$1 hidden=$2
shift 2
IFS='
'
mount -t tmpfs -o mode=755 tmpfs /srv
number=0
for place in $kept; do
    number=$((number + 1))
    mkdir "/srv/$number"
    mount --bind "$place" "/srv/$number"
done
for place in $hidden; do
    mount -t tmpfs -o mode=755 tmpfs "$place"
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
number=0
for place in $kept; do
    number=$((number + 1))
    mkdir -p "$place"
    mount --bind "/srv/$number" "$place"
    mount -o remount,bind,ro "$place"
done
mount -o remount,bind,ro /
cd /tmp
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs \
    --inh-caps=-all --bounding-set=-all "$@"
