# `make demo` and `make test` need Python 3.11 or newer with pip, and nothing else.
PYTHON ?= python3
# Test processes; 0 runs the tests in this one, where a debugger can reach them.
WORKERS ?= 2
# Options of the demo: `make demo DEMO=--quick`.
DEMO ?=

BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint clean

demo: $(READY)
	$(BIN)/moshi-jax demo $(DEMO)

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

clean:
	rm -rf .venv .pytest_cache .ruff_cache build *.egg-info

# The stamp is renewed when the dependencies change, not each time.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[audio,dev]'
	touch $(READY)
