# Needs GNU make and a Python 3.13 (or, failing that, 3.12 or newer) with venv and pip. No Docker, no root.

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --no-input --require-hashes
SOURCES := layers/common/sitebackup functions local mock_providers benchmarks infrastructure scripts tests
LISTS := layers/common/requirements.txt $(wildcard requirements/*.txt)
# Those that start no service.
COVERAGE_TESTS := tests/unit $(wildcard tests/simulation tests/contract/test_export*.py tests/contract/test_time_limits.py)
MUTATE := .local/mutate
SCOPES := backup:read backup:write backup:restore backup:delete
OSV := https://api.osv.dev
export SAM_CLI_TELEMETRY := 0

# The first interpreter that really runs, is new enough and can make virtual environments: a shim on PATH may
# be named python3.13 and fail. PYTHON=/path/to/python decides instead.
define find_python
found=; \
for candidate in $(PYTHON) python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python python3.12 python3.14 python3 \
    "$$HOME"/.pyenv/versions/3.1[2-9]*/bin/python; do \
  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
    found="$$candidate"; break; \
  fi; \
done; \
if [ -z "$$found" ]; then \
  echo "No Python 3.12 or newer with venv and pip was found on PATH or under ~/.pyenv." >&2; \
  echo "Install Python 3.13 (Debian: also python3-venv), or name one: make PYTHON=/path/to/python3.13 ..." >&2; \
  exit 1; \
fi
endef

# $(1) is the virtual environment; one that no longer runs is made anew.
define make_venv
if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
  $(find_python); \
  echo "Making $(1) with $$("$$found" --version) ($$found)"; \
  "$$found" -m venv --clear $(1); \
fi
endef

.PHONY: help setup demo test coverage mutate rehearsal bench up down wipe status logs invoke restore catalog-rebuild catalog-check token format lint audit sbom lint-infra lock openapi

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.test .venv-tools/.tools ## Install everything for development into .venv and .venv-tools
	@echo "Ready. Next: make demo, or make test."

demo: .venv/.local ## Back up two exports on real services here, change the site, restore it, compare every byte
	@echo "Running the demo: Kafka, MongoDB's protocol, S3, the providers' APIs and all functions, on this machine"
	@$(BIN)/python -m local demo

up: .venv/.local ## Start everything in the background, the API at http://127.0.0.1:3000
	@$(BIN)/python -m local up

down: .venv/.local ## Stop what `make up` started
	@$(BIN)/python -m local down

wipe: .venv/.local ## Remove the data and logs of `make up`, once it is down
	@$(BIN)/python -m local wipe

status: .venv/.local ## Show what runs, on which ports, and the lag of each Kafka mapping
	@$(BIN)/python -m local status

logs: .venv/.local ## Follow the log of `make up`
	@$(BIN)/python -m local logs

invoke: .venv/.local ## Invoke one function: make invoke FUNCTION=get_job EVENT=events/get_job.json
	@if [ -z "$(FUNCTION)" ] || [ -z "$(EVENT)" ]; then \
	  echo "Say which function and event: make invoke FUNCTION=get_job EVENT=events/get_job.json" >&2; exit 2; fi
	@$(BIN)/python -m local invoke "$(FUNCTION)" "$(EVENT)"

restore: .venv/.local ## Give a backup of `make up` back to its providers: make restore JOB=... [PROVIDERS=site,db] [SAFETY=false]
	@if [ -z "$(JOB)" ]; then \
	  echo "Say which backup: make restore JOB=6b0539ca9af75ebbde6865b0 (its jobId)" >&2; exit 2; fi
	@$(BIN)/python -m local restore "$(JOB)" "$(or $(PROVIDERS),all)" "$(or $(SAFETY),true)"

catalog-rebuild: .venv/.local ## Make the records that the bucket knows of: make catalog-rebuild BEFORE=... [STACK=...]
	@if [ -z "$(BEFORE)" ]; then \
	  echo "Say when the database was lost: make catalog-rebuild BEFORE=2030-01-31T12:00:00Z" >&2; exit 2; fi
	@$(BIN)/python -m local catalog-rebuild "$(BEFORE)" --stack "$(STACK)" --marker "$(MARKER)" --prefix "$(PREFIX)"

catalog-check: .venv/.local ## Compare the records with the bucket: make catalog-check [STACK=...]
	@$(BIN)/python -m local catalog-check --stack "$(STACK)" --marker "$(MARKER)" --prefix "$(PREFIX)"

# The shell has a USER of its own.
token: .venv/.local ## Print a token of `make up AUTH=jwt`: make token USER=... SITES=...,... [SCOPE="backup:read ..."]
	@if [ "$(origin USER)" != "command line" ] || [ -z "$(SITES)" ]; then \
	  echo "Say for whom: make token USER=5f0000000000000000000001 SITES=6a0000000000000000000001" >&2; exit 2; fi
	@$(BIN)/python -m local token "$(USER)" "$(SITES)" "$(or $(SCOPE),$(SCOPES))"

test: .venv/.test .venv-tools/.tools ## Run every test on two processes (PYTEST_ARGS="..." narrows it)
	@echo "Running the tests: pytest -n 2 $(PYTEST_ARGS)"
	@$(BIN)/pytest -n 2 --dist worksteal $(PYTEST_ARGS)

coverage: .venv/.test ## Measure which branches of the domain and of the transfer the fast tests take, about 5 minutes
	@$(BIN)/python -m coverage run -m pytest -q $(COVERAGE_TESTS)
	@$(BIN)/python -m coverage report

# In a copy, because mutmut imports the layer from src/ only, and without the fixtures that start services.
mutate: .venv-mutate/.mutate ## Change the domain piece by piece and see whether a test fails, which takes long (MODULE=plan)
	@rm -rf $(MUTATE); mkdir -p $(MUTATE)/src
	@cp -R layers/common/sitebackup $(MUTATE)/src; cp -R mock_providers tests pyproject.toml $(MUTATE)
	@find $(MUTATE)/tests -name conftest.py -exec rm {} +
	@cd $(MUTATE) && nice $(CURDIR)/.venv-mutate/bin/mutmut run --max-children 2 \
	  'sitebackup.domain$(if $(MODULE),.$(MODULE)).*'
	@cd $(MUTATE) && $(CURDIR)/.venv-mutate/bin/mutmut results --all true | awk -F '[.: ]+' ' \
	  $$NF == "checked" { next } \
	  { module = $$5 ~ /^x/ ? $$4 : $$4 "/" $$5; all[module]++ } \
	  $$NF == "killed" || $$NF == "timeout" { noticed[module]++; next } \
	  { print } \
	  END { for (module in all) printf "%-22s %4d of %4d are noticed\n", module, noticed[module], all[module] }'
	@echo "See one: cd $(MUTATE) && ../../.venv-mutate/bin/mutmut show NAME. Those known: docs/mutation.md"

rehearsal: .venv/.test .venv-tools/.tools .venv-rehearsal/.rehearsal ## Deploy with sam to an emulated AWS, and back up there, about 2 minutes
	@echo "Rehearsing the deployment: sam build, sam deploy, every sample event, a backup"
	@$(BIN)/pytest tests/rehearsal

bench: .venv/.local .venv-bench/.bench ## Measure against rclone, s5cmd and the AWS CLI, about 15 minutes (BENCH_ARGS="--only plain")
	@echo "Measuring: the table goes to docs/benchmarks.md"
	@PYTHONPATH=layers/common:. $(BIN)/python -m benchmarks $(BENCH_ARGS)

format: .venv/.test ## Sort imports, fix what ruff can fix, and lay the code out
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lint: .venv/.test .venv-tools/.tools ## Check style, types, security rules, secrets, import rules and template.yaml
	@echo "ruff: rules (those of bandit among them) and format"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@echo "mypy: types"
	@$(BIN)/mypy --strict $(SOURCES)
	@echo "import-linter: which module may import which"
	@PYTHONPATH=layers/common:. $(BIN)/lint-imports
	@echo "kingfisher: secrets"
	@git ls-files -z | xargs -0 .venv-tools/bin/kingfisher scan --quiet --redact --no-validate --no-update-check \
	  --git-history none --rule-cache-dir .local/kingfisher
	@echo "sam validate: template.yaml"
	@.venv-tools/bin/sam validate --lint --region us-east-1 --template-file template.yaml
	@$(MAKE) audit

audit: ## Look for known vulnerabilities in every locked list, if their database is reached
	@if ! .venv/bin/python -c 'import requests; requests.get("$(OSV)", timeout=5)' >/dev/null 2>&1; then \
	  echo "pip-audit: skipped, $(OSV) can't be reached"; exit 0; fi; \
	set -e; $(MAKE) .venv-audit/.audit; \
	for list in $(LISTS); do \
	  echo "pip-audit: $$list"; \
	  .venv-audit/bin/pip-audit --vulnerability-service osv --timeout 15 --progress-spinner off \
	    --disable-pip --require-hashes -r "$$list"; \
	done

sbom: .venv-audit/.audit ## Write what each artefact is made of (CycloneDX) into .local/sbom
	@set -e; mkdir -p .local/sbom; for list in $(LISTS); do \
	  name="$$(basename "$$list" .txt)"; [ "$$name" != requirements ] || name=layer; \
	  .venv-audit/bin/python -W ignore -m cyclonedx_py requirements "$$list" --pyproject pyproject.toml --output-reproducible \
	    --output-file ".local/sbom/$$name.json"; \
	  echo ".local/sbom/$$name.json"; \
	done

lint-infra: .venv-tools/.tools .venv-infra/.infra ## Check infrastructure/ and the security rules of all templates
	@echo "cfn-lint: infrastructure"
	@.venv-tools/bin/cfn-lint --regions us-east-1 -- infrastructure/*.yaml
	@echo "checkov: security rules (.checkov.yaml tells the exceptions and why)"
	@.venv-infra/bin/checkov --config-file .checkov.yaml

openapi: .venv/.local ## Write docs/openapi.json anew from the routes and types of the functions
	@PYTHONPATH=layers/common:. $(BIN)/python -m scripts.openapi docs/openapi.json

lock: ## Write the hashed requirement lists anew from pyproject.toml
	@echo "Resolving the dependency groups of pyproject.toml (with uv, in a virtual environment thrown away)"
	@set -e; $(find_python); \
	folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
	"$$found" -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv; \
	compile() { \
	  group="$$1"; list="$$2"; shift 2; echo "  $$list"; \
	  "$$folder/venv/bin/uv" pip compile --quiet --group "$$group" --python-version 3.12 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate "$$@" --output-file "$$list" >/dev/null; \
	}; \
	compile layer layers/common/requirements.txt; \
	compile local requirements/local.txt -c layers/common/requirements.txt; \
	compile test requirements/test.txt -c requirements/local.txt; \
	compile tools requirements/tools.txt; \
	compile infra requirements/infra.txt; \
	compile bench requirements/bench.txt; \
	compile audit requirements/audit.txt; \
	compile rehearsal requirements/rehearsal.txt; \
	compile mutate requirements/mutate.txt -c requirements/test.txt --universal # libcst needs another YAML on 3.13

.venv/.local: requirements/local.txt
	@$(call make_venv,.venv)
	@echo "Installing what the local run needs ($<)"
	@$(BIN)/python $(PIP_INSTALL) -r $<
	@touch $@

.venv/.test: requirements/test.txt requirements/local.txt
	@$(call make_venv,.venv)
	@echo "Installing what the tests need ($<)"
	@$(BIN)/python $(PIP_INSTALL) -r $<
	@touch .venv/.local $@

.venv-bench/.bench: requirements/bench.txt
	@$(call make_venv,.venv-bench)
	@echo "Installing the clients to compare with ($<)"
	@.venv-bench/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-tools/.tools: requirements/tools.txt
	@$(call make_venv,.venv-tools)
	@echo "Installing the AWS SAM CLI ($<)"
	@.venv-tools/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-infra/.infra: requirements/infra.txt
	@$(call make_venv,.venv-infra)
	@echo "Installing checkov ($<)"
	@.venv-infra/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-rehearsal/.rehearsal: requirements/rehearsal.txt
	@$(call make_venv,.venv-rehearsal)
	@echo "Installing ministack ($<)"
	@.venv-rehearsal/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-mutate/.mutate: requirements/mutate.txt
	@$(call make_venv,.venv-mutate)
	@echo "Installing mutmut and what the tests of the domain need ($<)"
	@.venv-mutate/bin/python $(PIP_INSTALL) -r $<
	@touch $@

.venv-audit/.audit: requirements/audit.txt
	@$(call make_venv,.venv-audit)
	@echo "Installing pip-audit and cyclonedx-py ($<)"
	@.venv-audit/bin/python $(PIP_INSTALL) -r $<
	@touch $@
