# The development commands. Each installs first what it needs beside the Rust toolchain
# (scripts/install.sh, quick when nothing is missing).

.PHONY: test demo bench soak lint clean install

# Every test, unit and integration, against a real Kafka and a real PostgreSQL.
test: install
	scripts/test.sh $(TEST_ARGS)

# A tour in one terminal: events in, rows out. KAFKA=real uses Apache Kafka, not the embedded broker.
demo: install
	demo/run.sh

# Events per second and CPU per event beside pgbench, in one run. See bench/README.md.
bench: install
	bench/run.sh

# Three instances under load for minutes, with a fault of some kind every few seconds, and the
# account of every record at the end. PGSLUICE_SOAK_MINUTES (5), PGSLUICE_SOAK_SEED (random).
soak: install
	cargo test --test endurance -- --ignored --nocapture soak

# Formatting, lints and documentation, as CI checks them.
lint: install
	cargo fmt --all --check
	cargo clippy --workspace --profile test --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --profile test --no-deps

clean:
	cargo clean
	rm -rf .cache

install:
	@scripts/install.sh
