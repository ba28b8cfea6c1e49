#!/usr/bin/env bash
# Runs one step of the tests: one line when it is well, everything it said when it is not.
# usage: step.sh NAME COMMAND [ARGUMENT...]
set -euo pipefail

name=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
SECONDS=0
if "$@" > "$log" 2>&1; then
    printf 'ok   %4d s  %s\n' "$SECONDS" "$name"
    # What a step wants seen though all is well.
    grep -E '^skipped: ' "$log" || true
else
    status=$?
    { printf 'FAIL %4d s  %s: %s\n' "$SECONDS" "$name" "$*"; cat "$log"; printf 'FAIL         %s\n' "$name"; } >&2
    exit "$status"
fi
