# `make help` says what there is.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env lock demo demo-down test lint unit docs molecule

PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLOPS_TESTBED_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlops.mlflow

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z|-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

env: .venv/.complete .collections/ansible_collections/mlops/mlflow ## the controller environment, from its lock

.venv/.complete: requirements/controller.txt testbed/environment
	testbed/environment $(PYTHON)

.collections/ansible_collections/mlops/mlflow:
	mkdir -p $(@D)
	ln -sfn ../../.. $@
