#!/usr/bin/env bash
# Runs shellcheck on every shell script that git has or would take, whatever its name; a template is none yet.
set -euo pipefail

if ! command -v shellcheck > /dev/null; then
    echo "skipped: shellcheck is not installed"
    exit 0
fi
scripts=()
while IFS= read -r -d '' file; do
    if [[ -f $file && $file != *.j2 ]] && head -n 1 "$file" | grep -aqE '^#!.*\b(ba)?sh\b'; then scripts+=("$file"); fi
done < <("$(dirname "$0")/files.sh")
shellcheck --external-sources "${scripts[@]}"
