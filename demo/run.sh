#!/usr/bin/env bash
# The demo: a producer writes events to Kafka, pgsluice moves them into PostgreSQL, and the terminal
# shows the outcome of each. Everything is deleted at the end, also after Ctrl-C.
#
#   make demo               with an embedded broker, nothing to download
#   make demo KAFKA=real    with Apache Kafka, downloaded once from Maven Central
#   KEEP=1 make demo        keeps running at the end, so that you can look around, until Ctrl-C
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# shellcheck source=../scripts/ports.sh
source scripts/ports.sh

kafka=${KAFKA:-embedded}
case $kafka in
embedded | real) ;;
*)
    echo "unknown KAFKA=$kafka; use embedded or real" >&2
    exit 2
    ;;
esac

bold='' dim='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; fi
title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
say() { printf '  %s\n' "$*"; }

# --- everything started here ends with this script -------------------------------------------------

# shellcheck source=../scripts/children.sh
source scripts/children.sh
finish() {
    trap - EXIT INT TERM
    end_children
    rm -rf "$work"
}
trap finish EXIT
trap 'echo; exit 130' INT
trap 'exit 143' TERM

# --- the parts -----------------------------------------------------------------------------------

title "Building pgsluice; the first build compiles librdkafka and takes several minutes"
cargo build -p pgsluice -p pgsluice-demo
built=${CARGO_TARGET_DIR:-$root/target}/debug
pgsluice=$built/pgsluice

title "Starting a temporary PostgreSQL and a broker ($kafka)"
start postgres scripts/postgres/run.sh "$work/postgres" fsync=off
if [ "$kafka" = real ]; then
    scripts/kafka/fetch.sh >/dev/null
    start broker scripts/kafka/run.sh "$work/kafka"
    until_ok "Kafka starts" 60 broker test -s "$work/kafka/bootstrap.servers"
    brokers=$(cat "$work/kafka/bootstrap.servers")
else
    start broker "$built/pgsluice-demo" broker
    until_ok "the embedded broker starts" 20 broker grep -q '^bootstrap.servers=' "$work/broker.log"
    brokers=$(sed -n 's/^bootstrap.servers=//p' "$work/broker.log" | head -1)
fi
until_ok "the broker listens" 60 broker wait_port "${brokers##*:}" 1
until_ok "PostgreSQL starts" 30 postgres test -s "$work/postgres/url"
url=$(cat "$work/postgres/url")
sql() { psql -X -q "$url" "$@"; }
until_ok "PostgreSQL answers" 30 postgres sql -c 'select 1'
say "brokers  $brokers"
say "database $url"

title "Running pgsluice with config/demo.toml; demo/schema.sql creates its tables"
sql -f demo/schema.sql
grep -Ev '^ *(#|$)' config/demo.toml | sed "s/.*/  $dim&$plain/"
# Slow enough to watch. The producer creates the topics, so it starts first.
start produce "$built/pgsluice-demo" produce --brokers "$brokers" --pace 40ms
producer=${children[-1]}
until_ok "the first event is sent" 30 produce test -s "$work/produce.log"
admin_port=$(free_port)
PGSLUICE__KAFKA__BROKERS=$brokers PGSLUICE__POSTGRES__URL=$url \
    PGSLUICE__ADMIN__LISTEN="127.0.0.1:$admin_port" PGSLUICE__LOG__FORMAT=json \
    start pgsluice "$pgsluice" run --config config/demo.toml
daemon=${children[-1]}
admin=http://127.0.0.1:$admin_port

# --- live progress -------------------------------------------------------------------------------

# Records by outcome, from the daemon's own metrics: "finished 13   APPLIED 12  STALE 1".
by_verdict() {
    { curl -fsS "$admin/metrics" 2>/dev/null || true; } | awk '
        /^pgsluice_records_total/ {
            split($1, part, /verdict="/); sub(/".*/, "", part[2])
            count[part[2]] += $2; total += $2
        }
        END {
            n = split("APPLIED DUPLICATE STALE SKIPPED DEAD_LETTERED PARKED", order, " ")
            printf "finished %d ", total
            for (i = 1; i <= n; i++) if (count[order[i]]) printf "  %s %d", order[i], count[order[i]]
        }'
}
title "Moving events"
last=
deadline=$((SECONDS + 90))
while true; do
    for part in "$daemon:pgsluice" "${children[1]}:broker" "${children[0]}:postgres"; do
        kill -0 "${part%%:*}" 2>/dev/null && continue
        echo "${part##*:} ended unexpectedly:" >&2
        tail -20 "$work/${part##*:}.log" >&2
        exit 1
    done
    now=$(by_verdict)
    sent=$(wc -l <"$work/produce.log")
    line="sent $sent   $now"
    if [ "$line" != "$last" ]; then say "$line"; fi
    last=$line
    finished=${now#finished }
    if ! kill -0 "$producer" 2>/dev/null && [ "${finished%% *}" -ge "$sent" ]; then break; fi
    if [ "$SECONDS" -ge "$deadline" ]; then
        echo "timed out: not every event has an outcome" >&2
        tail -20 "$work/pgsluice.log" >&2
        exit 1
    fi
    sleep 0.5
done
wait "$producer" || { cat "$work/produce.log" >&2; exit 1; }
say "${dim}events sent that should not end as APPLIED:$plain"
grep -v -- '-> APPLIED' "$work/produce.log" | sed 's/^/  /'

# --- the outcome ---------------------------------------------------------------------------------

show() { sql -P pager=off -P footer=off -c "$1" | sed 's/^/  /'; }

title "The user's own tables: public.customer, public.orders"
show "select id, name, email, address, version from public.customer
      order by id like 'customer-%', id limit 4"
show "select id, customer_id, total, status, version from public.orders
      order by id like 'order-c%', id limit 3"
title "The ledger, one row per aggregate: pgsluice.aggregate"
show "select aggregate_type, aggregate_id, version, deleted, parked_reason
      from pgsluice.aggregate
      order by aggregate_id ~ '^(customer-|order-c)', aggregate_type, aggregate_id limit 6"
title "One outcome per record: pgsluice.notification"
show "select status, reason, count(*) from pgsluice.notification group by 1, 2 order by 1, 2"
show "select topic || '/' || partition || '/' || \"offset\" as record, status, event_type, aggregate_id,
        aggregate_version as version, reason, error
      from (select *, row_number() over (partition by status order by topic, partition, \"offset\") as nth
            from pgsluice.notification) n
      where nth <= 2 order by status, nth"
title "Dead letters with their reasons: pgsluice.dead_letter, and the topics …-dlq"
unpublished() {
    [ "$(sql -Atc 'select count(*) from pgsluice.dead_letter where published_at is null')" -gt 0 ]
}
until_ok "the dead letters are published" 30 pgsluice eval '! unpublished'
show "select topic || '/' || partition || '/' || \"offset\" as record, disposition, reason, sqlstate,
        constraint_name, aggregate_id, published_at is not null as published
      from pgsluice.dead_letter order by partition, \"offset\" limit 10"

title "The daemon's own view: $admin/status"
curl -fsS "$admin/status" | sed 's/,"partitions":\[/,\n "partitions":[\n  /; s/},{"topic"/},\n  {"topic"/g' | sed 's/^/  /'
echo
if [ -n "${KEEP:-}" ]; then
    title "Still running: look around, then press Ctrl-C"
    say "psql $url"
    say "curl $admin/metrics"
    wait "$daemon"
fi
title "Stopping: SIGTERM, drain, exit"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
say "pgsluice ended with exit code $status"
exit "$status"
