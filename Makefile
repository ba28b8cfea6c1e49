# The collection itself needs no make: this is to see it work, and to develop it.
#
#   make demo     rotates secrets in the sandbox; needs no account
#   make test     lint, docs, sanity, package, unit, e2e, but for what takes long: it says what it leaves out
#   make ci       what CI runs: make test with all that takes long, and make hosts
#   make hosts    the role on Debian 12 and 13, booted here; needs root, mmdebstrap and systemd-container
#   make cores    modules and playbooks on every supported ansible-core
#   make commander-newest    attaching with the newest Keeper Commander of the package index; says which it is
#   make lint, docs, sanity, package, unit, e2e    parts of make test
#   make bench    times and requests of many rotations, in some minutes; BENCH_ARGS names single cases
#   make script   writes playbooks/files/rotate_azure_app.py anew
#   make lock     writes the lock files of the role gateway_host anew; LOCK_ARGS=--upgrade takes the newest of all
#
# It needs python3 (3.11 or newer, with venv), bash and make; all else is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
# Processes for pytest: a number, or auto for one to each core.
WORKERS ?= auto
# What is measured beside. CI spares it: it tells no test to fail, and costs some minutes.
COVERAGE ?= --cov --cov-report=term
# Further arguments for pytest, such as: make unit PYTEST_ARGS='-k retry'
PYTEST_ARGS ?=
LOCK_ARGS ?=
BENCH_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

ifneq ($(words $(VENV)),1)
$(error VENV has a space in it, which make cannot cope with: name another one; that of the checkout may have some)
endif

export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

# Relative, as the path of the checkout may have spaces in it.
CACHE := .cache
COLLECTIONS := $(CACHE)/collections
STEP := tests/tools/step.sh
ANSIBLE_LINT = env ANSIBLE_COLLECTIONS_PATH=$(COLLECTIONS) ansible-lint --offline --nocolor -q

.PHONY: help
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# The environment serves all; the larger set of requirements holds the smaller one.
.PHONY: venv venv-demo
venv:
	@$(PYTHON) tests/tools/venv.py $(VENV) requirements-dev.txt

venv-demo:
	@$(PYTHON) tests/tools/venv.py $(VENV) requirements-demo.txt

# Made anew when the checkout has been moved; otherwise left alone, as there is a moment without it in between.
LINK := $(COLLECTIONS)/ansible_collections/keeperpam/azure
.PHONY: link
link:
	@mkdir -p $(dir $(LINK))
	@test "$$(readlink $(LINK))" = "$$(pwd)" || ln -sfn "$$(pwd)" $(LINK)

.PHONY: script
script: venv
	python tools/amalgamate.py

.PHONY: lock
lock: venv
	python tools/lock.py $(LOCK_ARGS)

.PHONY: demo
demo: venv-demo link
	@ANSIBLE_COLLECTIONS_PATH="$$(pwd)/$(COLLECTIONS)" python tests/demo.py

# The gates share the cores, and each tells what it finds even if another fails; pytest, which is sensitive to
# waiting times, has the machine for itself. Its closing line is the last.
.PHONY: test
test: venv link
	@test -n "$${KEEPERPAM_FULL:-}" || echo "This takes about twenty minutes on two cores. Left out, and run by make ci:" \
	    "the other Pythons, the other ansible-cores, the real Commander, most of the fault matrix and of the waits," \
	    "the role on booted hosts, and where chromium or promtool is not installed, the page in a browser and the alert" \
	    "rules."
	@$(MAKE) -j2 -k gates
	@$(MAKE) pytest TESTS="tests/unit tests/e2e tests/cores"

# Both at once: where one waits the other works. Most of the tests wait, so that more processes than cores pay.
.PHONY: ci
ci: venv link
	@hosts=$$(mktemp); trap 'rm -f "$$hosts"' EXIT; status=0; \
	$(MAKE) hosts > "$$hosts" 2>&1 & pid=$$!; \
	KEEPERPAM_FULL=1 KEEPERPAM_MATRIX=full $(MAKE) test WORKERS=10 COVERAGE= || status=$$?; \
	wait $$pid || status=$$?; \
	echo "== what make hosts said"; cat "$$hosts"; exit $$status

.PHONY: cores
cores: TESTS := tests/cores
cores: export KEEPERPAM_FULL := 1
cores: pytest

.PHONY: gates
gates: sanity lint docs package

.PHONY: lint
lint: ruff mypy shellcheck changelog ansible-lint examples

.PHONY: ruff
ruff: venv
	@$(STEP) "ruff check" ruff check --quiet
	@$(STEP) "ruff format" ruff format --quiet --diff

.PHONY: mypy
mypy: venv link
	@$(STEP) "mypy" env MYPYPATH=$(COLLECTIONS) mypy --package ansible_collections.keeperpam.azure.plugins

.PHONY: shellcheck
shellcheck: venv
	@$(STEP) "shellcheck" tests/tools/shellcheck.sh

.PHONY: changelog
changelog: venv
	@$(STEP) "changelog" antsibull-changelog lint

.PHONY: ansible-lint
ansible-lint: venv link
	@$(STEP) "ansible-lint" $(ANSIBLE_LINT)

.PHONY: examples
examples: venv link
	@python tests/tools/examples.py plugins/modules $(CACHE)/examples/tasks
	@$(STEP) "ansible-lint of EXAMPLES" $(ANSIBLE_LINT) $(CACHE)/examples/tasks/*.yml

.PHONY: docs
docs: venv
	@$(STEP) "documentation" antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

.PHONY: sanity
sanity: venv
	@$(STEP) "ansible-test sanity" tests/tools/sanity.sh $(CACHE)/sanity

.PHONY: package
package: venv
	@$(STEP) "package" tests/tools/package.sh $(CACHE)/package

.PHONY: unit
unit: TESTS := tests/unit
unit: pytest

.PHONY: e2e
e2e: TESTS := tests/e2e
e2e: pytest

# Not part of the above: what is the newest changes by itself.
.PHONY: commander-newest
commander-newest: TESTS := $(wildcard tests/e2e/test_attach_*.py)
commander-newest: export KEEPERPAM_COMMANDER := newest
commander-newest: forget-newest pytest

.PHONY: forget-newest
forget-newest:
	@rm -rf $(CACHE)/commander-newest

# One process: the tests are a story, and the machines are the same for all.
.PHONY: hosts
hosts: venv link
	@python -m pytest -n 0 $(PYTEST_ARGS) tests/hosts

.PHONY: bench
bench: venv link
	@PYTHONPATH=tests:tests/e2e ANSIBLE_COLLECTIONS_PATH="$$(pwd)/$(COLLECTIONS)" python tests/bench/bench.py $(BENCH_ARGS)

.PHONY: pytest
pytest: venv link
	@python -m pytest -n $(WORKERS) --maxschedchunk 1 $(COVERAGE) $(PYTEST_ARGS) $(TESTS)

.PHONY: clean
clean:
	rm -rf .ansible .cache .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache $(VENV) tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
