#!/usr/bin/env bash
# The benchmark: a release build with a real Kafka and a real PostgreSQL, compared with pgbench.
# BENCH_EVENTS (300000), BENCH_AGGREGATES (20000) and BENCH_ROUNDS (3) change its size. PGSLUICE__
# variables change the daemon's settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/kafka/fetch.sh >/dev/null
cargo bench --bench throughput
