#!/usr/bin/env bash
# Builds the collection from a copy of the checkout and looks at it as those will who get it from Galaxy.
# usage: package.sh WORK_DIRECTORY     (leaves the tarball there)
# PATH begins with the virtual environment that holds ansible-core and galaxy-importer.
set -euo pipefail

mkdir -p "$1"
work=$(cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
quiet() {
    if ! "$@" > "$work/last.log" 2>&1; then
        cat "$work/last.log"
        echo "failed: $*"
        return 1
    fi
}

rm -rf "$work"/*.tar.gz "$work/installed" "$work/importer"
"$here/clean_copy.sh" "$work/source"
mkdir -p "$work/importer"

export ANSIBLE_COLLECTIONS_PATH=$work/installed ANSIBLE_CONFIG=$here/../ansible.cfg ANSIBLE_NOCOLOR=1
quiet ansible-galaxy collection build --force --output-path "$work" "$work/source"
tarball=$(echo "$work"/keeperpam-azure-*.tar.gz)

echo "contents"
python "$here/tarball.py" "$tarball"

echo "installed into an empty directory"
quiet ansible-galaxy collection install --offline --collections-path "$work/installed" "$tarball"
quiet ansible-galaxy collection verify --offline keeperpam.azure
cd "$work" # not in the checkout, so that nothing is found by being near
installed=$work/installed/ansible_collections/keeperpam/azure
for type in modules inventory; do
    for plugin in "$installed/plugins/$type"/[!_]*.py; do
        if [[ ! -e $plugin ]]; then continue; fi
        name=keeperpam.azure.$(basename "$plugin" .py)
        echo "${type%s} $name"
        quiet ansible-doc --type "${type%s}" "$name"
        if ! grep -qi "^> ${type%s} $name" "$work/last.log"; then
            cat "$work/last.log"
            exit 1
        fi
    done
done
for playbook in "$installed"/playbooks/*.yml; do
    if [[ ! -e $playbook ]]; then continue; fi
    name=$(basename "$playbook" .yml)
    echo "playbook $name"
    quiet ansible-playbook --syntax-check "keeperpam.azure.$name"
done

echo "execution environment"
quiet ansible-builder introspect "$work/installed"
if ! grep -q msal "$work/last.log"; then
    echo "failed: an execution environment would lack the Python packages"
    exit 1
fi

echo "galaxy-importer"
export GALAXY_IMPORTER_CONFIG="" GALAXY_IMPORTER_TMP_ROOT_DIR=$work/importer
quiet python -m galaxy_importer.main "$tarball"
if grep -E '^(ERROR|CRITICAL)' "$work/last.log"; then exit 1; fi
grep -E '^WARNING' "$work/last.log" || true
