# The front doors. `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format test-native fuzz fuzz-guided bench soak soak-tls memory zlint docs-check clean distclean setup setup-dev
BIN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup ## see a real daemon sign real things with keys in a token
	@$(BIN)/python examples/demo.py

test: setup-dev ## the whole test-suite: lint, native tests under sanitizers, Python tests
	@scripts/test

lint: setup-dev ## ruff, mypy --strict, import walls, formatting
	@scripts/lint

format: setup-dev ## put the code in its form
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

test-native: setup-dev ## the C tests under AddressSanitizer, UBSan and ThreadSanitizer
	$(MAKE) -C native test

fuzz: setup-dev ## feed all parsers with what nobody meant to send (SECONDS=60 for each half, C and Python)
	$(MAKE) -C native fuzz SECONDS=$(or $(SECONDS),60)
	$(BIN)/python -W ignore -m tests.fuzz.run --jobs 2 --seconds $(or $(SECONDS),60)

fuzz-guided: setup-dev ## the same for each parser in Python, guided by coverage (atheris; SECONDS=60 for each)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	$(BIN)/python -c 'from tests.fuzz.targets import TARGETS; print(*TARGETS)' | tr ' ' '\n' | \
	    xargs -n 1 -I '{}' $(BIN)/python -W ignore -m tests.fuzz.guided '{}' -max_total_time=$(or $(SECONDS),60)

bench: setup-dev ## figures, as ratios to the bare device measured in the same run; a page of them, with pictures
	$(MAKE) -C bench
	$(BIN)/python -m bench.run $(BENCH_ARGS)
	$(BIN)/python -m bench.report

soak: setup-dev ## mixed callers, random faults, kill -9: is anything lost? (SECONDS=600)
	$(BIN)/python -m tests.soak.run --seconds $(or $(SECONDS),600)

soak-tls: setup-dev ## many TLS handshakes with hsmsign.so, under valgrind: is anything lost or touched? (HANDSHAKES=10000)
	$(BIN)/python -m tests.soak.handshakes --handshakes $(or $(HANDSHAKES),10000) --under $(or $(UNDER),valgrind)

memory: setup-dev ## a million signatures: is the memory flat?
	$(BIN)/python -m bench.memory --signatures $(or $(SIGNATURES),1000000)

zlint: ## a second linter for certificates, for the tests (needs Go; takes half a minute)
	GOBIN=$(CURDIR)/build/zlint go install github.com/zmap/zlint/v3/cmd/zlint@v3.7.3

setup: ## what `make demo` needs: Debian packages, .venv, the package with its native modules
	@scripts/setup server

setup-dev: ## the same, with what the tests need
	@scripts/setup dev

clean: ## what was built, but not .venv
	rm -rf build native/build bench/build hsmsign/v1/*_pb2* hsmsign/_native/*.so *.egg-info

distclean: clean ## everything that git does not know
	rm -rf .venv
