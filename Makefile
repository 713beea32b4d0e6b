# The development commands. Each first installs what it needs in addition to the Rust toolchain
# (scripts/install.sh, which is quick when nothing is missing).

.PHONY: test demo bench soak lint clean install

# Every test, unit and integration, against a real Kafka and a real PostgreSQL.
test: install
	scripts/test.sh $(TEST_ARGS)

# A tour in one terminal: events in, rows out. KAFKA=real uses Apache Kafka instead of the embedded
# broker.
demo: install
	demo/run.sh

# Events per second and CPU per event next to pgbench, in one run. See bench/README.md.
bench: install
	bench/run.sh

# Three instances under load for minutes, with a fault every few seconds. At the end the outcome of
# every record is checked. PGSLUICE_SOAK_MINUTES (5), PGSLUICE_SOAK_SEED (random).
soak: install
	cargo test --test endurance -- --ignored --nocapture soak

# Formatting, lints and documentation, as in CI.
lint: install
	cargo fmt --all --check
	cargo clippy --workspace --profile test --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --profile test --no-deps

clean:
	cargo clean
	rm -rf .cache

install:
	@scripts/install.sh
