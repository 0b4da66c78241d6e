# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs by itself, in .venv,
# with nothing but Python 3.11 or newer and PyPI. The second run is quick: a stamp remembers what is installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test torture verify mutants bench bench-peers lint docs

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.with-cli ## watch a conversation outlive its provider session
	@$(BIN)/conversation-fsm demo

# The real Claude CLI takes some 400 MB. Its tests run where it is installed, and in CI, which installs it.
test: $(VENV)/.with-dev $(if $(CI),$(VENV)/.with-claude-agent) ## run every test and doctest, with branch coverage
	@test -e $(VENV)/.with-claude-agent || export CONVERSATION_FSM_SKIPPED='fsm/providers/claude_agent/*.py'; \
	  $(BIN)/python -m pytest -n auto --doctest-modules --cov --cov-config=setup.cfg --cov-report=term fsm persistence tests

torture: $(VENV)/.with-dev ## run the crash tests for long: 5,000 kills, and more of everything else
	@CONVERSATION_FSM_TORTURE=1 $(BIN)/python -m pytest -n auto --timeout=3600 -rP --show-capture=all tests/crash

verify: $(VENV)/.with-dev ## explore the machine, check its models with spin and TLC
	@CONVERSATION_FSM_VERIFY=1 $(BIN)/python -m pytest -q -s --no-header tests/verification

bench: $(VENV)/.with-dev ## measure: ratios to what the database costs, growth, throughput; some minutes
	@$(BIN)/python -m tests.benchmarks

bench-peers: ## measure a durable turn beside those of peers, in an environment of their own
	@test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip --disable-pip-version-check install -q -e . openai-agents 'sqlalchemy[asyncio]' aiosqlite \
	  langgraph langgraph-checkpoint-sqlite google-adk strands-agents
	@$(VENV)-peers/bin/python -W ignore -m tests.benchmarks.peers

mutants: $(VENV)/.with-dev ## change the code in 5,000 ways and see that the tests notice; an hour, and it may be stopped
	@$(BIN)/mutmut run
	@$(BIN)/python -m tests.mutants

lint: $(VENV)/.with-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.with-dev ## build the documentation into docs/_build/html and run its doctests
	$(BIN)/python -m sphinx -q -W -n --keep-going -b html docs docs/_build/html
	$(BIN)/python -m sphinx -q -W -n --keep-going -b doctest docs docs/_build/doctest
	@echo "The documentation is in docs/_build/html/index.html"

# One stamp a set of dependencies. `dev` contains `cli`, so it brings that stamp too.

$(VENV)/.with-cli: pyproject.toml | $(VENV)/.created
	@echo "==> installing the library and its command line into $(VENV)"
	$(PIP) install -e '.[cli]'
	@touch $@

$(VENV)/.with-dev: pyproject.toml | $(VENV)/.created
	@echo "==> installing the library and the tools to test and document it into $(VENV)"
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.with-cli

$(VENV)/.with-claude-agent: pyproject.toml | $(VENV)/.with-dev
	@echo "==> installing the Claude Agent SDK, with the CLI that it bundles, into $(VENV)"
	$(PIP) install -e '.[claude-agent]'
	@touch $@

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no '$(PYTHON)' on the PATH; conversation-fsm needs Python 3.11 or newer." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1); conversation-fsm needs Python 3.11 or newer." >&2; \
	  echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "==> creating a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
