#!/usr/bin/env bash
# Copies what git has or would take, uncommitted work included and ignored files not, into an empty directory.
# usage: clean_copy.sh DIRECTORY
set -euo pipefail

mkdir -p -- "$1"
to=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
rm -rf -- "$to"
mkdir -p -- "$to"
cd "$here/../.."
tests/tools/files.sh |
    tar --create --null --no-recursion --files-from=- |
    tar --extract --directory="$to"
