#!/usr/bin/env bash
# Copies what git has or would take, uncommitted work included and ignored files not, into an empty directory.
# usage: clean_copy.sh DIRECTORY     (from within the checkout)
set -euo pipefail

to=$1
rm -rf -- "$to"
mkdir -p -- "$to"
cd "$(git rev-parse --show-toplevel)"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        # A file that is deleted, but not yet for git, is still in its list.
        if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
    done |
    tar --create --null --no-recursion --files-from=- |
    tar --extract --directory="$to"
