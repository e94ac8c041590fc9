# `make help` says what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env lock demo demo-down clean test lint unit docs docs-update molecule scenarios sbom audit bundle bench

# Empty for the best that there is.
PYTHON ?=
SCENARIO ?= default
# Those that take longest begin first.
SCENARIOS := upgrade database_host import default airgap external
NAME ?= serving
MODE ?= quick
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLOPS_TESTBED_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlops.mlflow

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: env ## a host, and MLflow on it, used by the real client
	@testbed/demo/run

demo-down: env ## remove what demo made
	@testbed/demo/down

test: env ## everything: linters, documentation, unit tests, all Molecule scenarios
	@testbed/machine browser lint
	@$(MAKE) --no-print-directory --jobs lint docs unit scenarios

scenarios: env
	@testbed/scenarios $(SCENARIOS)

lint: env ## yamllint, ansible-lint (production profile), changelog, ansible-test sanity
	yamllint --strict .
	ANSIBLE_HOME=$(CURDIR)/.ansible ANSIBLE_INVENTORY_UNPARSED_FAILED=false ansible-lint --strict
	antsibull-changelog lint
	testbed/sanity

unit: env ## tests that need no host
	@testbed/auditor
	pytest --quiet tests/unit --ignore=tests/unit/test_documentation.py

docs: env ## generated pages are fresh, links and names exist
	python docs/generate.py --check
	pytest --quiet tests/unit/test_documentation.py

docs-update: env ## write the generated pages
	python docs/generate.py

molecule: env ## one scenario: make molecule SCENARIO=default
	@testbed/scenarios $(SCENARIO)

lock: env ## resolve the newest packages again (requirements/, roles/mlflow/files/locks/)
	testbed/lock

sbom: env ## what the lock of each MLflow version installs, as CycloneDX (build/sbom/)
	@python testbed/sbom.py build/sbom

audit: env ## known vulnerabilities of every locked package; fails when they cannot all be looked up
	@testbed/audit

bundle: env ## everything that a site without a way out needs, in one file (build/bundle/)
	@ansible-playbook -i localhost, playbooks/bundle.yml -e bundle_folder=$(CURDIR)/build/bundle

bench: env ## one measurement on hosts made for it: make bench NAME=serving MODE=full (or settings, deploying, upgrade, import, airgap; quick)
	@benchmarks/$(NAME)/run $(MODE)

clean: ## remove environments, downloads and host images
	testbed/clean

env: .venv/.complete .collections/ansible_collections/mlops/mlflow ## the controller environment, from its lock

.venv/.complete: requirements/controller.txt testbed/environment
	@testbed/environment $(PYTHON)

.collections/ansible_collections/mlops/mlflow:
	@mkdir -p $(@D)
	@ln -sfn ../../.. $@
