# SPDX-License-Identifier: ZPL-2.1
#
# `make demo` sets up and runs, `make test` checks all.  Both look after the virtual environment:
# it is made when it is missing, and brought up to date when pyproject.toml has changed.
# `make test PYTHON=python3.12` does the same with another interpreter, in an environment beside it.

PYTHON ?= python3
VENV ?= $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
ARGS ?=
HOURS ?= 8

BIN := $(VENV)/bin
RUN := $(BIN)/python -m

# The modules that decide about jobs, limits and what may be reached: no line and no branch of them goes untested.
FULLY_COVERED := \
	src/zasync/job/states.py \
	src/zasync/job/crashes.py \
	src/zasync/job/interruption.py \
	src/zasync/job/cancelling.py \
	src/zasync/job/renewal.py \
	src/zasync/dispatcher/cancelling.py \
	src/zasync/job/progress.py \
	src/zasync/job/record.py \
	src/zasync/job/retry.py \
	src/zasync/job/marker.py \
	src/zasync/job/carrying.py \
	src/zasync/job/two_databases.py \
	src/zasync/queue/memory.py \
	src/zasync/queue/parked.py \
	src/zasync/queue/waiting.py \
	src/zasync/queue/quota.py \
	src/zasync/queue/queue.py \
	src/zasync/queue/registration.py \
	src/zasync/agent.py \
	src/zasync/calls/call.py \
	src/zasync/calls/register.py \
	src/zasync/calls/description.py \
	src/zasync/calls/answer.py \
	src/zasync/integrations/zope/execution.py \
	src/zasync/integrations/zope/expressions.py \
	src/zasync/integrations/zope/identity.py \
	src/zasync/integrations/zope/job.py \
	src/zasync/integrations/zope/settings.py \
	src/zasync/integrations/zope/surroundings.py \
	src/zasync/plugins/addresses.py \
	src/zasync/plugins/credentials.py \
	src/zasync/plugins/handlers.py

# An environment that was broken off halfway has no pip; then it is made again.
MAKE_VENV := $(RUN) pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check

# The tests, as `make test` runs them: with coverage, and without.
PARTS := tests/unit tests/integration tests/integrations tests/docs
WHOLE := tests/acceptance tests/conformance tests/kills tests/torture tests/simulation tests/teeth \
	tests/benchmark

PLONE_VENV ?= $(VENV)-plone
PLONE := $(PLONE_VENV)/.installed-plone

CORE := $(VENV)/.installed-core
DEV := $(VENV)/.installed-dev
BENCH_VENV ?= $(VENV)-bench
BENCH := $(BENCH_VENV)/.installed-bench

comma := ,
space := $() $()

.PHONY: help demo test lint types layers unit system programs covered docs pictures bench bench-full \
	teeth simulate kills torture torture-long format test-plone plone-screenshots
# The steps of `make test` follow each other: `covered` reads what `unit` has written.
.NOTPARALLEL:

help:
	@echo "make demo [ARGS=...]   run the demonstration"
	@echo "make format            have ruff put the code in order"
	@echo "make test              everything below, in this order"
	@echo "make lint              ruff: rules and format"
	@echo "make types             mypy"
	@echo "make layers            import-linter"
	@echo "make unit [ARGS=...]   the tests of parts, with branch coverage"
	@echo "make system [ARGS=..]  real processes and servers, simulated histories, seeded bugs"
	@echo "make covered           full coverage of FULLY_COVERED, by the last 'make unit'"
	@echo "make test-plone [ARGS=..]  the tests of Plone, in $(PLONE_VENV); not part of 'make test'"
	@echo "make plone-screenshots  the picture of docs/plone.md"
	@echo "make teeth             which test catches which seeded bug"
	@echo "make bench [ARGS=...]  zasync and its peers, measured in about five minutes"
	@echo "make bench-full [ARGS=..] the same in depth, into docs/performance.md; an hour or more"
	@echo "make simulate [ARGS=..] histories of several nodes with faults, in virtual time"
	@echo "make kills             SIGKILL at each moment of a job's life, on each storage"
	@echo "make torture [ARGS=..] about ten minutes of faults, and a table of what came of it"
	@echo "make torture-long HOURS=n   the same for so many hours"
	@echo "make docs              the documentation, into docs/_build/html"
	@echo "make pictures          the screenshots of the documentation, taken anew"

demo: $(CORE)
	@$(BIN)/zasync demo $(ARGS)

test: lint types layers unit covered system docs

lint: $(DEV)
	$(RUN) ruff check
	$(RUN) ruff format --check

types: $(DEV)
	$(RUN) mypy

layers: $(DEV)
	$(BIN)/lint-imports --no-logo

unit: $(DEV) programs
	$(RUN) pytest -n 2 --cov --cov-report=term-missing:skip-covered $(PARTS) $(ARGS)

# Much of it waits for processes, so three at a time keep two cores busy.
system: $(DEV) programs
	$(RUN) pytest -n 3 --dist worksteal $(WHOLE) $(ARGS)

# Brings what the tests drive from the system's packages, where it is missing and the user is root.
programs: $(DEV)
	$(RUN) tests.support.programs

# Coverage passes over a file that is not there, so a module that moved would go unchecked.
covered: $(DEV)
	@ls $(FULLY_COVERED) >/dev/null
	$(RUN) coverage report --fail-under=100 --include=$(subst $(space),$(comma),$(strip $(FULLY_COVERED)))

# The conftest.py of the other tests needs what is not installed beside Plone, hence --confcutdir.
test-plone: $(PLONE)
	$(PLONE_VENV)/bin/python -m tests.support.programs
	$(PLONE_VENV)/bin/python -m pytest --confcutdir=tests/plone tests/plone $(ARGS)
	$(PLONE_VENV)/bin/python -m pytest --confcutdir=tests/plone --two-databases \
		tests/plone/test_bulk.py $(ARGS)

# The pictures of docs/plone.md, of a real site in a real browser.
plone-screenshots: $(PLONE)
	$(PLONE_VENV)/bin/python -m tests.plone.screenshots docs/images

# `make bench-full ARGS=--resume` takes up a run that was broken off.
bench: $(BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks run $(ARGS)

bench-full: $(BENCH)
	$(BENCH_VENV)/bin/python -m benchmarks page --full $(ARGS)

teeth: $(DEV)
	$(RUN) tests.teeth

simulate: $(DEV)
	$(RUN) tests.simulation $(ARGS)

kills: $(DEV)
	ZASYNC_KILLS=zeo,sqlite,postgresql $(RUN) pytest -n 2 tests/kills $(ARGS)

# A run says by its exit code whether anything was lost, doubled, or missed.
torture: $(DEV)
	$(RUN) torture $(ARGS)

torture-long: $(DEV)
	$(RUN) torture --hours $(HOURS) $(ARGS)

docs: $(DEV)
	$(RUN) sphinx -q -W --keep-going -b html docs docs/_build/html

pictures: $(DEV) programs
	$(RUN) tests.support.pictures docs/images

format: $(DEV)
	$(RUN) ruff check --fix
	$(RUN) ruff format

$(CORE): pyproject.toml
	@echo "Setting up $(VENV)"
	@$(MAKE_VENV)
	@$(INSTALL) --editable .
	@touch $@

# Plone's dependencies fill the machine for minutes; nothing of them is needed elsewhere.
$(PLONE): pyproject.toml
	@echo "Setting up $(PLONE_VENV) with Plone"
	@$(PLONE_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(PLONE_VENV)
	@$(PLONE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[plone-test]"
	@touch $@

# What development needs includes the core.
$(DEV): pyproject.toml
	@echo "Setting up $(VENV) for development"
	@$(MAKE_VENV)
	@$(INSTALL) --editable ".[dev]"
	@touch $(CORE) $@

# zasync, its peers, and the plots.  An environment of their own, since what else is installed is
# measured too: where Twisted finds pyOpenSSL, each process that imports it takes 13 MB more.
$(BENCH): pyproject.toml
	@echo "Setting up $(BENCH_VENV) for the benchmark"
	@$(BENCH_VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	@touch $@
