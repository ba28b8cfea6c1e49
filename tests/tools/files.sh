#!/usr/bin/env bash
# Lists the files of the checkout that git has or would take, each ended by a NUL; where there is no git, or the checkout
# is none of git's, all but what is made by work in it.
# usage: files.sh
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd -P)
cd "$checkout"
top=$(git rev-parse --show-toplevel 2> /dev/null || true)
# It may lie in a folder of another repository.
if [[ -n $top && $(cd "$top" && pwd -P) == "$checkout" ]]; then
    git ls-files -z --cached --others --exclude-standard |
        while IFS= read -r -d '' file; do
            # A file that is deleted, but not yet for git, is still in its list.
            if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
        done
else
    # What .gitignore names. A hidden folder of the checkout is .ci alone.
    find . -mindepth 1 \( \
        -path './.?*' -type d ! -path ./.ci -o -path ./.git -o -path './.venv*' -o -path './.coverage*' \
        -o -path ./collections -o -path ./tests/output -o -path ./tests/integration/inventory \
        -o -path ./changelogs/.plugin-cache.yaml -o -name __pycache__ -o -name '*.retry' -o -name '*.tar.gz' \
        \) -prune -o \( -type f -o -type l \) -printf '%P\0'
fi
