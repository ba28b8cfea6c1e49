# The collection itself needs no make: this is to see it work, and to develop it.
#
#   make demo     rotates secrets in the sandbox; needs no account
#   make test     everything that CI runs: lint, docs, sanity, package, unit, e2e
#   make hosts    the role on Debian 12 and 13, booted here; needs root, mmdebstrap and systemd-container
#   make lint, docs, sanity, package, unit, e2e    parts of it
#   make script   writes playbooks/files/rotate_azure_app.py anew
#   make lock     writes the lock files of the role gateway_host anew; LOCK_ARGS=--upgrade takes the newest of all
#
# It needs python3 (3.11 or newer, with venv), make and git; all else is installed into .venv.

PYTHON ?= python3
VENV ?= .venv
# Processes for pytest: a number, or auto for one to each core.
WORKERS ?= auto
# Further arguments for pytest, such as: make unit PYTEST_ARGS='-k retry'
PYTEST_ARGS ?=
LOCK_ARGS ?=

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1

CACHE := $(CURDIR)/.cache
COLLECTIONS := $(CACHE)/collections
LINK := $(COLLECTIONS)/ansible_collections/keeperpam/azure
STEP := tests/tools/step.sh
ANSIBLE_LINT = env ANSIBLE_COLLECTIONS_PATH=$(COLLECTIONS) ansible-lint --offline --nocolor -q
PIP_INSTALL := $(VENV)/bin/python -m pip install -qq --disable-pip-version-check

# .venv serves all; each stamp says which requirements are in it, and the larger set holds the smaller one.
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev

.PHONY: help
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

.PHONY: venv
venv: $(DEV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$$($(PYTHON) -V) is too old: name a Python 3.11 or newer with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(DEMO): requirements-demo.txt requirements.txt | $(VENV)/bin/python
	@echo "Installing requirements-demo.txt into $(VENV)"
	@$(PIP_INSTALL) -r requirements-demo.txt
	@touch $@

$(DEV): requirements-dev.txt requirements-demo.txt requirements.txt | $(VENV)/bin/python
	@echo "Installing requirements-dev.txt into $(VENV): about a minute the first time"
	@$(PIP_INSTALL) -r requirements-dev.txt
	@touch $(DEMO) $@

# Made anew when the checkout has been moved.
.PHONY: link
link:
	@mkdir -p $(dir $(LINK)) && ln -sfn $(CURDIR) $(LINK)

.PHONY: script
script: $(DEV)
	$(VENV)/bin/python tools/amalgamate.py

.PHONY: lock
lock: $(DEV)
	$(VENV)/bin/python tools/lock.py $(LOCK_ARGS)

.PHONY: demo
demo: $(DEMO) link
	@ANSIBLE_COLLECTIONS_PATH=$(COLLECTIONS) $(VENV)/bin/python tests/demo.py

# The gates share the cores, and each tells what it finds even if another fails; pytest, which is sensitive to
# waiting times, has the machine for itself. Its closing line is the last.
.PHONY: test
test: $(DEV) link
	@$(MAKE) -j2 -k gates
	@$(MAKE) pytest TESTS="$(wildcard tests/unit tests/e2e)"

.PHONY: gates
gates: sanity lint docs package

.PHONY: lint
lint: ruff mypy shellcheck changelog ansible-lint examples

.PHONY: ruff
ruff: $(DEV)
	@$(STEP) "ruff check" ruff check --quiet
	@$(STEP) "ruff format" ruff format --quiet --diff

.PHONY: mypy
mypy: $(DEV) link
	@$(STEP) "mypy" env MYPYPATH=$(COLLECTIONS) mypy --package ansible_collections.keeperpam.azure.plugins

.PHONY: shellcheck
shellcheck: $(DEV)
	@$(STEP) "shellcheck" tests/tools/shellcheck.sh

.PHONY: changelog
changelog: $(DEV)
	@$(STEP) "changelog" antsibull-changelog lint

.PHONY: ansible-lint
ansible-lint: $(DEV) link
	@$(STEP) "ansible-lint" $(ANSIBLE_LINT)

.PHONY: examples
examples: $(DEV) link
	@python tests/tools/examples.py plugins/modules $(CACHE)/examples/tasks
	@$(STEP) "ansible-lint of EXAMPLES" $(ANSIBLE_LINT) $(CACHE)/examples/tasks/*.yml

.PHONY: docs
docs: $(DEV)
	@$(STEP) "documentation" antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

.PHONY: sanity
sanity: $(DEV)
	@$(STEP) "ansible-test sanity" tests/tools/sanity.sh $(CACHE)/sanity

.PHONY: package
package: $(DEV)
	@$(STEP) "package" tests/tools/package.sh $(CACHE)/package

.PHONY: unit
unit: TESTS := tests/unit
unit: pytest

.PHONY: e2e
e2e: TESTS := tests/e2e
e2e: pytest

# One process: the tests are a story, and the machines are the same for all.
.PHONY: hosts
hosts: $(DEV) link
	@python -m pytest -n 0 $(PYTEST_ARGS) tests/hosts

.PHONY: pytest
pytest: $(DEV) link
	@python -m pytest -n $(WORKERS) --maxschedchunk 1 --cov --cov-report=term $(PYTEST_ARGS) $(TESTS)

.PHONY: clean
clean:
	rm -rf .ansible .cache .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache $(VENV) tests/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
