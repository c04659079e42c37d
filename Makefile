# From the published document to a tested wheel. `make help` explains every target.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# What pytest is given, for example: make test ARGS="tests/client -k retry"
ARGS ?= tests

# Empty files that say when a step was last done; gone with the environment that it was done to.
DONE := .venv/done
# The folders too: they are newer when a file was removed.
SHIPPED := $(shell find generated overlays/forge_realtime emulator -not -path '*/__pycache__*')

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The time in the wheel. Not the last commit's: an sdist has none. Hatchling's own default, so pip builds the same bytes.
export SOURCE_DATE_EPOCH := 1580601600
# Without compiled files, each process that tests start compiles the generator, and each worker of pytest all tests.
unexport PYTHONDONTWRITEBYTECODE
# uv trusts what the machine trusts, as pip does.
export UV_SYSTEM_CERTS := 1

.PHONY: help setup pull diff generate client wheel demo pictures test test-fast faults bench bench-report bench-check soak revisions mutations docs check sbom audit matrix publish vendor release push propose upgrade clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DONE)/setup ## Make .venv and install what is pinned in requirements.lock
$(DONE)/setup: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)")'
	@echo "Installing what is pinned into .venv: about a minute, the first time"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@mkdir -p $(DONE) && touch $@

pull: $(DONE)/setup ## Fetch the published document into spec/; SOURCE=: from another page, document or file; FORCE=1: even if refused
	$(BIN)/python -m generator pull $(if $(FORCE),--force) $(if $(SOURCE),"$$SOURCE")

diff: $(DONE)/setup ## Say what a pull changes for users of the client; OLD=, NEW=: compare other documents or git revisions
	@$(BIN)/python -m generator diff $(if $(OLD),"$$OLD",HEAD) $(if $(NEW),"$$NEW")

generate: $(DONE)/setup ## Make generated/ from the pinned document in spec/
	$(BIN)/python -m generator generate

client: $(DONE)/setup ## Make a client for another group of the document: TAG="Forge Context" PACKAGE=forge_context DEST=../my-app
	$(BIN)/python -m generator client --tag "$$TAG" --package "$$PACKAGE" --output "$$DEST" --check-types $(if $(FORCE),--force)

# In a make of its own, which sees what was generated.
wheel: generate ## Build the wheel into dist/ and install it into .venv
	@$(MAKE) --no-print-directory $(DONE)/wheel
$(DONE)/wheel: $(DONE)/setup $(SHIPPED) spec/realtime.json pyproject.toml README.md sbom.cdx.json
	@rm -rf dist
	$(BIN)/python -m hatchling build --target wheel
	@echo "$$(cat dist/*.whl | wc -c) bytes"
	$(BIN)/python -m pip install --quiet --no-index --no-deps --force-reinstall dist/*.whl
	@touch $@

demo: wheel ## Publish to live subscribers on the emulator, and show what arrived; SERVE=1: keep its console open
	$(BIN)/python tests/demo.py $(if $(SERVE),--serve)

pictures: wheel ## Take the pictures of the console in docs/pictures (needs Chromium)
	$(BIN)/python -m tests.pictures

# Tests wait more than they compute, so two processes for each of two cores. Each gets a run of neighbouring tests, which share fixtures.
PYTEST := $(BIN)/python -m pytest $(if $(filter tests,$(ARGS)),--numprocesses=4 --dist=worksteal)

# .ci/run sets COVERAGE. Elsewhere tests may be skipped, and less is covered. Tracing nearly doubles the time of a test, so it is left
# out where the client is not what is tested.
UNTRACED := tests/benchmarks tests/distribution/test_publish.py tests/docs tests/emulator tests/examples \
  tests/faults/test_ten_thousand.py tests/generator

test: wheel ## Test the installed wheel; ARGS="tests/client -k retry": a part; COVERAGE=98: fail below 98 % of branches
	$(if $(and $(COVERAGE),$(filter tests,$(ARGS))),$(PYTEST) $(UNTRACED))
	$(PYTEST) $(if $(COVERAGE),--cov=forge_realtime --cov-fail-under=$(COVERAGE) $(addprefix --ignore=,$(UNTRACED))) $(ARGS)

test-fast: wheel ## Test without the tests that are marked slow
	$(PYTEST) -m "not slow" $(ARGS)

faults: wheel ## Print what becomes of an event under each fault, on real sockets, and under each documented response
	$(BIN)/python -m tests.faults
	$(BIN)/python -m tests.documented

soak: wheel ## Run clients through 10 minutes of random faults, then random streams; ARGS="--seconds 0 --streams 10000"
	$(BIN)/python -m tests.faults.soak $(filter-out tests,$(ARGS))

revisions: $(DONE)/setup ## Pull, compare, generate and test through all published revisions, forwards and backwards, in a clone
	$(BIN)/python -m tests.revisions "$(ARGS)"

mutations: wheel ## Compare, generate and call with mutated documents, and print it all; DOCUMENTS=: a folder of your own
	@$(BIN)/python -m tests.mutations $(if $(DOCUMENTS),"$$DOCUMENTS")

bench: wheel ## Compare with other clients, and measure the emulator, on an idle machine; ARGS="--quick sync async"
	$(BIN)/python -m tests.benchmarks $(filter-out tests,$(ARGS))

bench-report: $(DONE)/setup ## Write the report of that run to tests/benchmarks/report; BASE=: compare with another run's JSON
	@$(BIN)/python -m tests.benchmarks.page $(if $(BASE),--base "$$BASE") "$${RESULTS:-.benchmarks/results.json}"

bench-check: wheel ## Count the instructions of a publish, and compare with the recorded ones; RECORD=1: record new ones
	@$(BIN)/python -m tests.benchmarks.counts $(if $(RECORD),--record)

docs: wheel ## Build the manual into docs/_build, offline; warnings are errors
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs docs/_build
	@echo "The manual is docs/_build/index.html"

check: $(DONE)/setup ## Check generated/, lint, types, workflows, spelling and known vulnerabilities
	$(BIN)/python -m generator check
	@$(MAKE) --no-print-directory wheel
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@rm -rf dist/unpacked && $(BIN)/python -m zipfile --extract dist/*.whl dist/unpacked
	@# Side by side: each uses one core.
	($(BIN)/mypy dist/unpacked/forge_realtime dist/unpacked/forge_realtime_emulator && $(BIN)/mypy generator tests) & \
	  mypy=$$!; $(BIN)/pyright --pythonpath $(BIN)/python; pyright=$$?; wait $$mypy && exit $$pyright
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows
	$(BIN)/typos
	@$(MAKE) --no-print-directory audit

release: $(DONE)/setup ## Set the version, close the changelog, commit and tag; BUMP=auto|major|minor|patch. Pushes nothing
	@$(BIN)/python -m generator release --bump "$${BUMP:-auto}"

push: ## Push the last commit and its release tag, both or neither
	@tag=$$(git describe --exact-match --match 'v[0-9]*') || { echo 'The last commit is no release: make release' >&2; exit 1; }; \
	git push --atomic origin HEAD "refs/tags/$$tag" && \
	if [ -n "$$GITHUB_OUTPUT" ]; then echo "tag=$$tag" >> "$$GITHUB_OUTPUT"; fi

propose: $(DONE)/setup ## Pull, and open or update a pull request with the comparison (needs gh); SOURCE= as for pull
	$(BIN)/python -m generator propose $(if $(SOURCE),"$$SOURCE")

sbom: $(DONE)/sbom ## Write sbom.cdx.json, the CycloneDX SBOM of the core's locked dependencies, for the wheel
	@env -u SOURCE_DATE_EPOCH .venv/sbom/bin/cyclonedx-py environment --output-reproducible --mc-type library \
	  --pyproject .venv/sbom/pyproject.toml --output-file sbom.cdx.json .venv/core
# An environment for the tool, and one that holds what the core needs, for it to look at. They need the package index.
$(DONE)/sbom: $(DONE)/setup requirements-sbom.lock pyproject.toml overlays/forge_realtime/_version.py
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/sbom
	$(BIN)/uv pip install --quiet --require-hashes --python .venv/sbom -r requirements-sbom.lock
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/core
	$(BIN)/uv pip install --quiet --python .venv/core -r pyproject.toml --constraint requirements.lock
	@sed "s/^dynamic = .*/version = \"$$($(BIN)/python -m hatchling metadata version)\"/" pyproject.toml > .venv/sbom/pyproject.toml
	@touch $@

# Where nothing can be looked up, it says so, and fails nothing. A package that PyPI lacks hides no finding in the others.
audit: $(DONE)/setup ## Look up known vulnerabilities of the locked packages (needs PyPI)
	@failed=$$($(MAKE) --no-print-directory $(DONE)/sbom 2>&1 >/dev/null) || \
	  { echo "$$failed" >&2; echo 'audit: nothing was looked up, because pip-audit could not be installed'; exit 0; }; \
	audit() { .venv/sbom/bin/pip-audit --progress-spinner off --disable-pip --require-hashes --requirement "$$@"; }; \
	for lock in requirements*.lock; do \
	  found=$$(audit $$lock --format json 2>&1) || case $$found in \
	    *'"vulns": [{'*) audit $$lock; exit 1 ;; \
	    *ConnectionError*) echo "audit: PyPI is not reachable here; $$lock was not looked up"; continue ;; \
	    *) echo "$$found" >&2; exit 1 ;; \
	  esac; \
	  all=$$(echo "$$found" | grep -o '"name":' | wc -l); skipped=$$(echo "$$found" | grep -o '"skip_reason":' | wc -l); \
	  if [ $$skipped -eq $$all ]; then echo "audit: PyPI's API is not reachable here; $$lock was not looked up"; \
	  else echo "audit: $$lock: no known vulnerabilities in $$((all - skipped)) packages; $$skipped are not on PyPI"; fi; \
	done

matrix: wheel $(DONE)/sbom ## Test lowest and highest dependencies on every Python here (FORGE_REALTIME_PYTHON=3.14: on one), and the newest frameworks; needs the index
	FORGE_REALTIME_INDEX=required $(BIN)/python -m pytest tests/distribution/test_matrix.py tests/distribution/test_sbom.py

publish: $(DONE)/setup ## Build wheel and sdist, and upload them to the package index at INDEX=https://…
	@$(BIN)/python -m generator publish "$$INDEX"

vendor: wheel ## Copy the core into an app: DEST=../app/_vendor; FORCE=1: discard edits of the copy
	@$(BIN)/python -m forge_realtime.vendor $(if $(FORCE),--force) "$$DEST"

LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
  --no-header --no-strip-extras --quiet

upgrade: $(DONE)/setup ## Bring requirements*.lock up to date with pyproject.toml and the newest releases, and the SBOM with them
	$(LOCK) pyproject.toml --group dev --all-extras --upgrade --output-file requirements.lock
	$(LOCK) pyproject.toml --group sbom --upgrade --output-file requirements-sbom.lock
	$(LOCK) tests/benchmarks/peers.in --upgrade --output-file tests/benchmarks/peers.lock
	@$(MAKE) --no-print-directory sbom

clean: ## Remove everything that the other targets made, except generated/
	rm -rf .venv dist docs/_build .benchmarks .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
