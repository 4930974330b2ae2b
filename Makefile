# Every command that a developer needs; `make` alone lists them.
PYTHON ?= python3
BIN := .venv/bin
# The locks are complete, so pip must not resolve: it would reject the overrides of [tool.uv] in pyproject.toml.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all:
# This environment finds the checkout, so that `…/.venv/bin/python -m fraudctl` works in every folder.
IN_EVERY_FOLDER := import os, pathlib, sysconfig; \
  pathlib.Path(sysconfig.get_path("purelib"), "fraud-detection.pth").write_text(os.getcwd() + "\n")
# Extras stay in the lock, because older pip treats `coverage[toml]` as unpinned beside `coverage==7`.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
  --no-strip-extras --no-emit-index-url --no-annotate --custom-compile-command 'make lock'
# Long files first, as tests/conftest.py orders them: xdist itself keeps a long file of few tests for last.
SPREAD := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Tests that need neither Docker nor Helm, spread over the cores.
HERE := $(SPREAD) $(addprefix --ignore=tests/,chart compose e2e images)

.DEFAULT_GOAL := help
.PHONY: help setup run mlflow test coverage lint faults stories images chart compose kind-up e2e kind-down generate bench lock clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One stamp file per set of packages, so that the second run starts at once.
.venv/runtime: requirements/api.txt requirements/jobs.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "fraud-detection needs Python 3.11 or newer, $(PYTHON) is %d.%d: try make PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing the packages of the API and the jobs (a minute, only the first time)"
	@$(PIP_INSTALL) -r requirements/api.txt -r requirements/jobs.txt
	@$(BIN)/python -c '$(IN_EVERY_FOLDER)'
	@touch $@

.venv/dev: .venv/runtime requirements/dev.txt
	@echo "Installing the packages of the tests (only the first time)"
	@$(PIP_INSTALL) -r requirements/dev.txt
	@touch $@

# checkov pins a hundred packages, so it has a separate environment.
.venv/checkov/bin/checkov: .venv/dev requirements/checkov.txt
	@echo "Installing checkov, which scans the chart (a minute, only the first time)"
	@$(PYTHON) -m venv .venv/checkov
	@$(subst $(BIN)/,.venv/checkov/bin/,$(PIP_INSTALL)) -r requirements/checkov.txt
	@touch $@

setup: .venv/dev  ## create .venv with everything in it

run: .venv/runtime  ## serve on 127.0.0.1:5000 with a first model and an embedded database
	@$(BIN)/python -m fraudctl serve --first-time

mlflow: .venv/runtime  ## open MLflow's UI on 127.0.0.1:5051 to read what each training tried
	@$(BIN)/python -m fraudctl mlflow

test: .venv/dev  ## run the tests; PostgreSQL's half runs if a server can be started
	@$(BIN)/python -m pytest -m "not faults and not stories" $(HERE)

coverage: .venv/dev  ## run the same tests and the stories, and show missed lines; below 95 % it fails
	@$(BIN)/python -m pytest -m "not faults" $(HERE) --cov --cov-report=term:skip-covered

faults: .venv/dev  ## run the long tests: kill -9, fuzz, killed promotions, the loop on real transactions
	@$(BIN)/python -m pytest -m "faults and not alone" $(SPREAD) tests/faults tests/test_story.py
	@$(BIN)/python -m pytest -m "faults and alone" tests/faults

stories: .venv/dev  ## run the long stories: what a user does, from beginning to end
	@$(BIN)/python -m pytest -m stories $(HERE)

images: .venv/dev  ## build both images and test them, locked down (needs Docker)
	@$(BIN)/python -m pytest tests/images

chart: .venv/dev .venv/checkov/bin/checkov  ## test the Helm chart, its rules and dashboards (needs Helm 3 and 4, Prometheus)
	@$(BIN)/python -m pytest $(SPREAD) tests/chart

compose: .venv/dev  ## start what compose.yaml describes and test it (needs Docker)
	@$(BIN)/python -m pytest tests/compose

kind-up:  ## create a kind cluster with images, Prometheus and the chart (needs Docker, kind, kubectl, Helm)
	@k8s-dev/up.sh $(HELM_OPTIONS)

e2e: .venv/dev  ## prove in that cluster that the loop closes and that nothing is lost
	@$(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e

kind-down:  ## remove the cluster, with everything stored in it
	@k8s-dev/down.sh

lint: .venv/dev  ## check style, types, imports, shell scripts and workflows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/shellcheck .ci/run k8s-dev/*.sh .github/scripts/*.sh
	@$(BIN)/zizmor --offline --no-progress --quiet --persona auditor .github
	@PATH="$(BIN):$$PATH"; if command -v actionlint >/dev/null; then actionlint; else \
	  echo "actionlint is not installed, so the syntax of the workflows was not checked (https://github.com/rhysd/actionlint)"; \
	  test "$$CI" != true; fi

generate: .venv/dev  ## write every generated file: dashboards, tables, documents (needs helm and helm-docs for the chart)
	@$(BIN)/python -m generate

bench: .venv/dev  ## compare our API with a naive application and an empty route
	@$(BIN)/python -m bench.compare

lock: .venv/dev  ## refresh requirements/*.txt to the newest versions, with hashes
	@$(LOCK) --upgrade --all-extras --group dev -o requirements/dev.txt pyproject.toml
	@$(LOCK) --constraint requirements/dev.txt --extra api --extra postgresql -o requirements/api.txt pyproject.toml
	@$(LOCK) --constraint requirements/dev.txt --extra jobs --extra postgresql -o requirements/jobs.txt pyproject.toml
	@echo checkov | $(LOCK) --upgrade -o requirements/checkov.txt -

clean:  ## remove .venv and caches; data and models stay
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
