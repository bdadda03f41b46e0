# Everything a developer runs. `make quickstart` and `make test` need nothing but Python 3.11, make, git and a C compiler.
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-release check format wheel bench docs lock clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two files of tests at a time: the longest wait for clients that sleep between two looks at a job.
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder
READY := .venv/.ready
WHEELS ?= dist
# Where Python may not keep its bytecode, each of the hundreds of processes that tests start compiles Sagesmith anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Sagesmith needs Python 3.11 or later; this is " + sys.version)'
	@echo "Making .venv (once; about a minute)..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@UV_FIND_LINKS="$${PIP_FIND_LINKS:-$$UV_FIND_LINKS}" $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q src
	@touch $(READY)

quickstart: $(READY) ## Train, deploy and predict, end to end, and clean up
	@$(BIN)/python examples/quickstart.py

test: $(READY) ## Run all tests (what needs Docker, PostgreSQL, bubblewrap or an SDK skips and says so where it is absent)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-release: $(READY) ## Run the tests of what a release has compiled, on a wheel of this tree
	@python=$$($(BIN)/python -m bench.release) && $$python -m pytest $(PYTEST_ARGS) tests/aws tests/hosting \
	  tests/services/test_runtime.py tests/services/test_response_stream.py \
	  $(addprefix tests/e2e/test_,hosting.py multi_model.py serverless.py async.py components.py capture.py)

check: $(READY) ## Format, lint, strict types, import rules
	@$(BIN)/ruff format --check src tests bench examples docs
	@$(BIN)/ruff check src tests bench examples docs
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY) ## Format the code and mend what the linter can
	@$(BIN)/ruff format src tests bench examples docs
	@$(BIN)/ruff check --fix src tests bench examples docs

wheel: $(READY) ## Build what is released, in dist/: what every invocation passes through is compiled (about a minute)
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/uv build --quiet --build-constraints requirements.lock --python $(BIN)/python --out-dir $(WHEELS)

bench: $(READY) ## Measure a wheel of this tree: ratios against floors and peers (BENCH_ARGS="serving --json", ...)
	@$(BIN)/python -m bench $(BENCH_ARGS)

docs: $(READY) ## Build the documentation site in site/; a broken link or a missing name fails
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir .cache/doctrees docs site
	@echo "site/index.html"

lock: $(READY) ## Resolve the dependencies again
	@$(BIN)/uv pip compile --quiet --upgrade pyproject.toml --group dev --extra postgres \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header \
	  --python-version 3.11 -o requirements.lock

clean: ## Remove what was built
	@rm -rf .venv .bench .quickstart build dist site tests/clients/.environments
	@find src tests bench examples docs -name __pycache__ -prune -exec rm -rf {} +
