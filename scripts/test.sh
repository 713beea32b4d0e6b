#!/usr/bin/env bash
# Runs all tests: starts one real Kafka for all test binaries, then runs `cargo test` with the given
# arguments. Each test binary starts its own temporary PostgreSQL.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=ports.sh
source scripts/ports.sh

work=$(mktemp -d)
kafka=
finish() {
    if [ -n "$kafka" ]; then
        kill "$kafka" 2>/dev/null || true
        wait "$kafka" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ -z "${PGSLUICE_TEST_KAFKA:-}" ]; then
    # Fetch before starting anything, so that a failed download is reported as such.
    scripts/kafka/fetch.sh >/dev/null
    setpriv --pdeathsig KILL scripts/kafka/run.sh "$work/kafka" >"$work/kafka.log" 2>&1 &
    kafka=$!
    for _ in $(seq 300); do
        if [ -s "$work/kafka/bootstrap.servers" ]; then break; fi
        kill -0 "$kafka" 2>/dev/null || { cat "$work/kafka.log" >&2; exit 3; }
        sleep 0.2
    done
    PGSLUICE_TEST_KAFKA=$(cat "$work/kafka/bootstrap.servers")
    # Holds the address and the CA of the listener with TLS and SCRAM.
    PGSLUICE_TEST_KAFKA_DIR=$work/kafka
    export PGSLUICE_TEST_KAFKA PGSLUICE_TEST_KAFKA_DIR
    wait_port "${PGSLUICE_TEST_KAFKA##*:}" 60 || { cat "$work/kafka.log" >&2; exit 3; }
    echo "test.sh: Kafka listens on $PGSLUICE_TEST_KAFKA"
fi

# A plain `cargo test` runs a tenth of these seeds of the simulation.
export PGSLUICE_SIM_SEEDS=${PGSLUICE_SIM_SEEDS:-100000}
# Most tests spend more time waiting for servers than computing.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
# Run every binary, even after one has failed.
cargo test --workspace --no-fail-fast "$@"
