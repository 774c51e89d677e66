# Everything runs in one .venv, made by the first target that needs it. A stamp file makes the second call quick.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?=
DEMO_DATA := $(or $(DATA),demo/pictures)

.DEFAULT_GOAL := help
.PHONY: help setup demo test style bench docs clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp-dev ## make .venv with the package, its dependencies and the development tools

$(VENV)/.stamp-core: setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("grmp_hf needs Python 3.11 or newer, found " + sys.version.split()[0] + "; try make PYTHON=python3.11")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet -c constraints.txt torch
	$(RUN) -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-core
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/.stamp-core $(if $(DATA),,demo/pictures/labels.csv) ## adapt with 50 ratings, score the rest; DATA=DIR has pictures and labels.csv
	@$(if $(DATA),,echo "No DATA given: procedural pictures, rated by their known distortion levels, not by people.")
	$(VENV)/bin/grmp-iqa adapt --data $(DEMO_DATA) --shots 50 --seed 0 --output demo/adapter --report demo --overwrite

demo/pictures/labels.csv: training/make_demo_pictures.py | $(VENV)/.stamp-core
	$(RUN) $< $(@D)

test: $(VENV)/.stamp-dev style ## run every check: style, types, tests, examples in docstrings
	$(RUN) -m pytest -n logical --dist loadfile -m "not slow and not gpu" --durations=20

style: $(VENV)/.stamp-dev ## check format, lint and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: $(VENV)/.stamp-dev ## run every benchmark again and rewrite benchmarks/results
	set -e; for file in benchmarks/bench_*.py benchmarks/tiny_clip.py benchmarks/tables.py; do echo "== $$file"; $(RUN) "$$file"; done

docs: $(VENV)/.stamp-dev ## check the documents: links, public names, commands
	$(RUN) -m pytest -q tests/test_docs.py

clean: ## remove caches, builds and the demo's output (not .venv)
	rm -rf build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
