# Two commands matter: `make demo` and `make test`. Both set up all that they need in .venv.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two cores test side by side; a test file stays on one of them.
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: demo test lint schemas bench clean

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "reconciler needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@echo "Making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "On Debian, venv is a package of its own: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing reconciler"
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing reconciler with all that its tests need"
	@$(PIP) -e '.[all,dev]'
	@touch $@ $(VENV)/.demo

# The main job on the embedded default: the sample data centre against simulated hosts.
demo: $(VENV)/.demo
	@$(VENV)/bin/reconciler demo

# Everything that CI checks. On Debian as root it prepares real hosts; elsewhere it says what is left out.
test: $(VENV)/.test lint
	@$(VENV)/bin/python -m tests.prepare
	@$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.test
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/ruff format --check --quiet . || { echo "Run: $(VENV)/bin/ruff format ."; exit 1; }
	@$(VENV)/bin/python -m mypy --no-error-summary

schemas: $(VENV)/.demo
	@$(VENV)/bin/reconciler schema --write schemas

bench: $(VENV)/.test
	@$(VENV)/bin/python -m tests.bench.hosts

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
