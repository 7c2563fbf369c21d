# Two commands for a newcomer: `make up` runs Redraft, `make test` passes its tests. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
EDITS ?= 100000
# Tests run side by side in so many processes, each with servers of its own. They wait more than they work.
JOBS ?= 3

# Without it each process compiles our modules anew when it starts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: up test check audit alerts pgbouncer typescript nginx namespaces faults model fuzz soak bench lock clean
.DEFAULT_GOAL := up

$(VENV)/runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Redraft needs Python 3.11 or newer; say which with: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/testing: tests/requirements.lock $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements.lock
	@touch $@

$(VENV)/benching: tests/benchmarks/requirements.lock $(VENV)/testing
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/benchmarks/requirements.lock
	@touch $@

# In an environment of its own: what audits the packages is no part of them.
$(VENV)/auditing: tests/dependencies/requirements.lock $(VENV)/testing
	@test -x $(VENV)/audit/bin/python || $(BIN)/python -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/dependencies/requirements.lock && touch $@ \
	  || echo "pip-audit could not be installed" >&2

up: $(VENV)/runtime ## the whole stack with demo data; Ctrl-C stops it
	@exec $(BIN)/redraft up --demo $(ARGS)

check: $(VENV)/testing ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# The checks run beside the tests, which leave a core idle now and then. They speak only where they fail, last.
test: $(VENV)/testing ## everything that CI runs
	@$(MAKE) --no-print-directory check >$(VENV)/checked 2>&1 & check=$$!; trap 'kill $$check 2>/dev/null; exit 130' INT TERM; \
	$(BIN)/pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder $(ARGS); tests=$$?; \
	wait $$check; checked=$$?; test $$checked = 0 || cat $(VENV)/checked; \
	test $$tests = 0 || echo "make test: the tests failed, see above" >&2; \
	test $$checked = 0 || echo "make test: the checks failed, see above" >&2; \
	test $$tests$$checked = 00

audit: $(VENV)/auditing ## known holes in the locked packages; says so aloud where no advisories are in reach
	$(BIN)/python -m tests.dependencies.audit $(VENV)/audit/bin/pip-audit

alerts: $(VENV)/testing ## alert rules and dashboard in a real Prometheus (Debian: apt-get install prometheus)
	$(BIN)/pytest tests/monitoring/real_prometheus.py $(ARGS)

pgbouncer: $(VENV)/testing ## all roles through a real PgBouncer (Debian 13: apt-get install pgbouncer)
	$(BIN)/pytest tests/deployment/real_pgbouncer.py tests/faults/real_pgbouncer.py $(ARGS)

typescript: $(VENV)/testing ## a TypeScript client made of the document, under tsc --strict and at work (Node 20; npm needs the network)
	$(BIN)/pytest tests/contract/real_typescript.py $(ARGS)

nginx: $(VENV)/testing ## the proxies of docs/deployment.md as a real nginx (Debian: apt-get install nginx-light)
	$(BIN)/pytest tests/docs/test_nginx.py tests/api/http/connections/test_nginx.py $(ARGS)

namespaces: $(VENV)/testing ## two API hosts and three worker hosts, links cut and delayed (root; Debian: apt-get install iproute2 iptables)
	unshare --net $(BIN)/pytest tests/faults/real_namespaces.py $(ARGS)

faults: $(VENV)/testing ## every row of the fault list, short and long forms (one row: make faults ARGS="-k row_05")
	$(BIN)/pytest -m "not fuzz" tests/faults $(ARGS)

model: $(VENV)/testing ## all states of a post on its way out, 11 steps deep (deeper: make model ARGS="--depth 13")
	$(BIN)/python -m tests.model.search --depth 11 $(ARGS)

fuzz: $(VENV)/testing ## Schemathesis, all checks, 2,000 examples an operation: the better part of an hour
	$(BIN)/pytest -m fuzz tests/contract $(ARGS)

soak: $(VENV)/testing ## many edits while faults strike at random, then the oracle; writes tests/soak/REPORT.md
	$(BIN)/python -m tests.soak --edits $(EDITS) $(ARGS)

bench: $(VENV)/benching ## writes tests/benchmarks/RESULTS.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

lock: ## resolve the lock files anew (needs uv)
	uv pip compile pyproject.toml --extra local --group build --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade --output-file requirements.lock
	uv pip compile pyproject.toml --extra local --extra tracing --group build --group test --constraints requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade --output-file tests/requirements.lock
	uv pip compile pyproject.toml --extra local --extra tracing --group build --group test --group bench --constraints tests/requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade --output-file tests/benchmarks/requirements.lock
	uv pip compile --group clients --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade --output-file tests/contract/requirements.lock
	uv pip compile --group audit --constraints tests/requirements.lock --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --upgrade --output-file tests/dependencies/requirements.lock

clean: ## forget the virtual environment and the demo's data
	rm -rf $(VENV) .redraft
