# Each target is safe to repeat and says what it does. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DEMO_DATA ?= target/demo-data
# What the demo leaves out (Kafka, PostgreSQL) is what takes longest to build; `make build` has everything.
DEMO_BIN := target/demo/nightshift

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo
demo: demo-build ## Install what is missing, build, and show an estate that breaks and is healed, at http://127.0.0.1:8080
	@exec $(DEMO_BIN) demo

.PHONY: demo-build
demo-build:
	@scripts/setup build
	@echo "==> building (the first time takes some minutes; later seconds)"
	cargo build --locked --profile demo --no-default-features -p nightshift

.PHONY: watch
watch: demo-build ## Build (small and quick) and watch this very machine
	@echo "==> starting: incidents at http://127.0.0.1:8080 and in \`$(DEMO_BIN) incidents --watch\`; Ctrl-C ends it"
	@exec $(DEMO_BIN) run --data $(DEMO_DATA) --log "$${NIGHTSHIFT_LOG:-warn,nightshift=info}"

.PHONY: build
build: ## The full release binary, default features, at target/release/nightshift
	@scripts/setup build full
	cargo build --locked --release -p nightshift

.PHONY: lint
lint: ## Formatting, clippy, and the rules of the house
	@scripts/setup build full
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run --locked -q -p xtask -- tidy

.PHONY: test
test: ## Everything, real servers included, in its short form
	@scripts/setup build full test
	@scripts/with-testenv cargo test --workspace --locked --no-fail-fast

.PHONY: test-long
test-long: ## The full numbers: restarts, simulation seeds, load
	@scripts/setup build full test
	cargo build --locked --release -p nightshift
	@NIGHTSHIFT_LONG=1 scripts/with-testenv cargo test --workspace --locked --no-fail-fast
	@NIGHTSHIFT_LONG=1 cargo test --release --locked -p nightshift --test loop_simulation
	@SEEDS="2 4 6 8 10 12 14 16 18 20" bench/run

.PHONY: bench
bench: ## Measure: detector, log mining, whole-process load; prints the table of bench/README.md
	@scripts/setup build full
	cargo build --locked --release -p nightshift
	@bench/run

QUALITY = python3 bench/quality $(if $(DATA),--data "$(DATA)") $(if $(SCORE),--score "$(SCORE)") \
  $(if $(PEERS),--peers) $(if $(ABLATION),--ablation) $(if $(CROSS_VALIDATE),--cross-validate) $(if $(JSON),--json) \
  $(if $(README),--readme bench/README.md)

.PHONY: bench-quality
bench-quality: ## Score the judgement on public data: DATA=… SCORE=… [PEERS=1] [ABLATION=1] [CROSS_VALIDATE=1] [JSON=1] [README=1]
	@$(QUALITY) --check
	@scripts/setup build full
	@cargo build --locked --release -p nightshift
	@cargo build --locked --release -p nightshift-detect --example detect_load
	@$(QUALITY)

.PHONY: testenv-down
testenv-down: ## Stop servers that an interrupted test left behind
	@testenv/down

# Nightshift with Kafka, PostgreSQL, Prometheus, Grafana and a mail catcher, in containers.
COMPOSE ?= docker compose
compose = $(COMPOSE) -f deploy/compose/compose.yaml

.PHONY: compose-up
compose-up: ## Build the image and start the compose project, each part when what it needs is healthy
	@deploy/compose/prepare
	$(compose) up --detach --build --wait
	@deploy/compose/prepare --where

.PHONY: compose-status
compose-status: ## What of the compose project runs, and how it is
	$(compose) ps --all

.PHONY: compose-logs
compose-logs: ## Follow what the compose project says (Ctrl-C ends it; SERVICE=nightshift for one)
	$(compose) logs --follow --tail 100 $(SERVICE)

.PHONY: compose-down
compose-down: ## Stop the compose project; its data stays
	$(compose) down --remove-orphans

.PHONY: compose-clean
compose-clean: ## Stop the compose project and throw its data and passwords away
	$(compose) down --remove-orphans --volumes
	rm -rf deploy/compose/.secrets

.PHONY: deploy-check
deploy-check: ## Check what is in deploy/: chart, image and compose project (with helm and a cluster where there are)
	@deploy/check
