#!/usr/bin/env bash
# Runs all of ansible-test's sanity tests on a copy of the checkout.
# usage: sanity.sh WORK_DIRECTORY [ARGUMENT OF ansible-test sanity...]
# PATH begins with the virtual environment that holds ansible-core.
set -euo pipefail

mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
version=$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# ansible-test makes virtual environments of its own and brings pip into them with a script from the web. Where there is
# only a package index, put a stand-in at the place that ansible-test names for a script fetched by hand: it installs the
# very version of pip from its wheel. Should even this fail, ansible-test has its own try and says what it misses.
provide_pip() {
    local cache=$HOME/.ansible/test/cache packages pip script
    packages=$(python -c '
import sys
from ansible_test._internal.python_requirements import get_venv_packages
class Python: version = "%d.%d" % sys.version_info[:2]
print(*(f"{name}=={version}" for name, version in get_venv_packages(Python).items()))')
    pip=$(tr ' ' '\n' <<< "$packages" | sed -n 's/^pip==//p')
    script=$cache/get_pip_${pip//./_}.py
    if [[ -f $script ]]; then return; fi
    mkdir -p "$cache"
    # shellcheck disable=SC2086  # one argument for each package
    python -m pip download -qq --no-deps --only-binary :all: --dest "$cache" $packages || return 0
    cat > "$script.$$" << PYTHON
# Stands in for get-pip.py: installs the wheels beside it.
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "pip-$pip-py3-none-any.whl"))

from pip._internal.cli.main import main

arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
sys.exit(main(["install", "--no-index", "--find-links", here, *arguments]))
PYTHON
    mv "$script.$$" "$script"
}

provide_pip

# It must be a real directory of this name, and a repository of its own: within an ignored directory of another one,
# ansible-test sees no files, skips everything and is content.
copy=$work/ansible_collections/keeperpam/azure
"$here/clean_copy.sh" "$copy"
if command -v git > /dev/null; then git -C "$copy" init -q; fi

cd "$copy"
log=$work/sanity.log
# Without --python it would try every Python on PATH, usable or not.
if ! ansible-test sanity --local --color no --python "$version" "$@" > "$log" 2>&1; then
    cat "$log"
    exit 1
fi
cat "$log"
if grep -q 'All targets skipped' "$log"; then
    echo "ansible-test found nothing to test." >&2
    exit 1
fi
