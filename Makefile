# The commands of this repository. `make` lists them.

# Which DynamoDB the demo runs: embedded, or local (Amazon's DynamoDB Local).
DYNAMODB ?= embedded
# More arguments for the demo: `make demo ARGS='--duration-s 60'`; all of them: `make demo ARGS=--help`.
ARGS ?=

CARGO := cargo
SETUP := sandbox/setup.sh
DENY := .tools/bin/cargo-deny
CHECKOV := .tools/checkov/bin/checkov

.DEFAULT_GOAL := help
.PHONY: help demo fleet regions repairs upgrade screenshot bench-reader bench-bytes package package-test test checked alerts terraform lint lint-files fmt

help: ## List these targets.
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 16

demo: ## Real updates from a table to Redis in two regions, compared at the end. DYNAMODB=local for Amazon's own.
	@$(SETUP) compiler redis $(if $(filter local,$(DYNAMODB)),java dynamodb-local)
	@$(CARGO) build --locked --workspace --bins
	@$(CARGO) run --locked --quiet --bin sandbox -- demo --dynamodb $(DYNAMODB) $(ARGS)

fleet: ## A fleet of aggregators over 5,000 shards, measured: start, losses, costs, restarts. About 15 minutes.
	@$(SETUP) compiler
	@$(CARGO) build --locked --release --workspace --bins
	@target/release/sandbox fleet $(ARGS)

regions: ## One of four regions is gone under load: what the others notice, and how it catches up. About 6 minutes.
	@$(SETUP) compiler
	@$(CARGO) build --locked --release --workspace --bins
	@target/release/sandbox regions $(ARGS)

upgrade: ## Two fleets upgraded from the commit before under load, one worker after another. About 5 minutes.
	@$(SETUP) compiler redis
	@$(CARGO) build --locked --release --workspace --bins --examples
	@target/release/sandbox upgrade $(ARGS)

repairs: ## Data goes missing or wrong under load, and is mended by the operators' commands. A few minutes.
	@$(SETUP) compiler redis
	@$(CARGO) build --locked --release --workspace --bins
	@target/release/sandbox repairs $(ARGS)

screenshot: ## Pictures of the admin page under load, one of four regions being cut off: docs/admin.png. 4 minutes.
	@$(SETUP) compiler redis chromium
	@$(CARGO) build --locked --workspace --bins
	@$(CARGO) run --locked --quiet --bin sandbox -- screenshot $(ARGS)

bench-reader: ## The bidders' Reader beside a plain Redis client, on one server. About 2 minutes.
	@$(SETUP) compiler redis
	@$(CARGO) build --locked --release --package warmcast-sandbox --bins
	@target/release/sandbox bench reader $(ARGS)

bench-bytes: ## Bytes on the wire for an update, by batch size and compression. A minute, after a release build.
	@$(SETUP) compiler
	@$(CARGO) build --locked --release --package warmcast-sandbox --bins
	@target/release/sandbox bench bytes $(ARGS)

# What packages are made of: `release`, or `debug` to try the package rather than the programs.
PROFILE ?= release
PACKAGES := target/package

package: ## A release tarball, a Debian package, their bills of materials and checksums, into target/package.
	@$(SETUP) compiler packaging cargo-cyclonedx lintian
	@$(CARGO) build --locked $(if $(filter release,$(PROFILE)),--release) -p warmcast-aggregator -p warmcast-cache-writer --bins
	@config/package/build.sh target/$(PROFILE) $(PACKAGES)
	@lintian --allow-root --fail-on error,warning $(PACKAGES)/*.deb

package-test: ## The Debian package under a real systemd, in a container: installed, run, killed, stopped, purged. Needs root.
	@$(SETUP) compiler packaging redis container
	@$(CARGO) build --locked --workspace --bins
	@DRAFT=yes config/package/build.sh target/debug $(PACKAGES)/draft
	@config/package/under-systemd.sh $(PACKAGES)/draft/*.deb target/debug/sandbox

# Clippy as the compiler of our own crates: what `cargo clippy` does for `cargo check`, for the build. From scratch, every
# library would otherwise be checked for the lints first and then built: minutes, on a small machine.
LINTED := CLIPPY_ARGS=-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__ RUSTC_WORKSPACE_WRAPPER=clippy-driver

# Everything that tests and checks need, one after another: the package manager does one thing at a time.
TOOLS := redis servers java dynamodb-local ministack kinesis-agg packaging chromium prometheus checkov \
	cargo-deny shellcheck hadolint

# What needs no build is fetched and checked while it builds. All targets are built at once: by themselves the programs
# would be built with other features of their libraries, and most libraries twice. The tests of whole programs come last:
# the last line printed is theirs.
test: ## Every check and every test there is.
	@$(SETUP) compiler
	@$(MAKE) --no-print-directory checked & checking=$$!; \
	$(LINTED) $(CARGO) build --locked --workspace --all-targets; built=$$?; \
	wait $$checking && exit $$built
	$(LINTED) $(CARGO) test --locked --workspace --doc
	$(LINTED) $(CARGO) test --locked --workspace --lib --bins --tests

checked:
	@$(SETUP) $(TOOLS)
	@$(MAKE) --no-print-directory lint-files alerts terraform

alerts: ## Prometheus' rules and Grafana's dashboard: alerts fire when they should; metrics and recipes are there.
	@$(SETUP) prometheus
	config/prometheus/check.sh

# Checkov asks nobody for anything, and fails on what it cannot read.
terraform: ## The Terraform modules: formatting, validity, tests against a mock of AWS, common mistakes.
	@$(SETUP) checkov
	terraform/check.sh
	BC_SKIP_MAPPING=TRUE CKV_PARSE_ERROR_FAIL=true $(CHECKOV) --config-file terraform/.checkov.yaml --directory terraform/modules

lint: lint-files ## Formatting, clippy, licences and advisories of dependencies, shell scripts.
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# The advisories are a database on the network: where it cannot be had, the rest is still checked.
lint-files:
	@$(SETUP) compiler cargo-deny shellcheck hadolint
	$(CARGO) fmt --all --check
	$(DENY) --workspace check --hide-inclusion-graph bans licenses sources
	@if $(DENY) fetch db >/dev/null 2>&1; then $(DENY) --workspace check --hide-inclusion-graph advisories; \
	else echo 'the advisory database cannot be fetched: advisories are NOT checked'; fi
	shellcheck sandbox/setup.sh config/prometheus/check.sh terraform/check.sh .ci/run config/package/*.sh config/package/debian/p*
	@[ ! -x .tools/bin/hadolint ] || .tools/bin/hadolint Containerfile

fmt: ## Format the code.
	$(CARGO) fmt --all
