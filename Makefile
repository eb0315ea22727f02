# Every target sets up what it needs in .venv; PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check docs format clean

help:  ## Show this list.
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: .venv/installed  ## Compress a real trained model and print what it cost.
	@mkdir -p out
	$(BIN)/onnxcomp cluster models/fashion_cnn.onnx -o out/fashion_cnn_4bit.onnx --bits 4 \
		--data models/fashion_calibration.npz --evaluate models/evaluate.py:accuracy

test: .venv/installed-test  ## Set up and run all checks, as CI does.
	@$(MAKE) --no-print-directory check

check:  ## Format, lint, types, import rules, tests; in the environment of make test.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2

docs: .venv/installed-docs  ## Build the documentation into out/docs; warnings are errors.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/mkdocs.yml

format:  ## Put the code in order.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment and everything made.
	rm -rf .venv out build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/installed-test: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ .venv/installed

.venv/installed-docs: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@ .venv/installed
