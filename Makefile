# From a bare machine with Python 3.11 to 3.13, pip, make and git: `make demo`, `make test`.
# The first target that needs it builds .venv from requirements.lock; nothing is installed without a hash.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-long lint docs bench lock clean

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## write phantom MR, train a UNet on it, attack it, write the report: minutes on a laptop
	$(BIN)/medadv demo

test: lint ## lint, types, walls, the documentation's snippets, and every test but the long ones
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto

test-long: $(READY) ## the tests that take minutes: the wheel in an empty environment, many kills
	$(BIN)/pytest -m long

lint: $(READY) ## ruff, mypy --strict, and the walls between the rooms
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(READY) ## build the documentation into docs/_build/html; a warning is an error
	rm -rf docs/_generated
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

bench: $(READY) ## ratios measured side by side on this machine
	for benchmark in benchmarks/*.py; do $(BIN)/python "$$benchmark"; done

lock: $(READY) ## renew requirements.lock after a change of pyproject.toml
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --group dev pyproject.toml -o requirements.lock

clean: ## remove caches and builds; keep .venv and every result in runs/
	rm -rf build dist docs/_build docs/_generated .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# uv is locked like everything else; pip only fetches it. `--without-pip` because Debian's Python has no ensurepip.
$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("medadv needs Python 3.11 to 3.13; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv --without-pip .venv
	sed -n '/^uv==/,/^    # via/p' requirements.lock > .venv/uv.lock
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --require-hashes --requirement .venv/uv.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	touch $@
