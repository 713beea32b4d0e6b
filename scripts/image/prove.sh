#!/usr/bin/env bash
# prove.sh [BINARY | --own-toolchain]: builds the image and runs the demo's story in it, against a
# real Kafka and a real PostgreSQL, as user 65532 with a read-only root and no capability. It needs no
# container engine: buildah executes the Dockerfile, and debootstrap provides Debian's base.
#
# The build stage's base image comes from its registry. With --own-toolchain it is made here instead,
# from Debian's base and this machine's Rust toolchain. With BINARY, that file replaces the build
# stage. PROFILE=dev builds faster. Needs root; works in .cache/image.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
# shellcheck source=../ports.sh
source scripts/ports.sh
[ "$(id -u)" -eq 0 ] || { echo "prove.sh: needs root" >&2; exit 3; }
for tool in buildah debootstrap psql curl; do
    command -v "$tool" >/dev/null || {
        echo "prove.sh: $tool is missing; run apt-get install $tool" >&2
        exit 3
    }
done
cache=${PGSLUICE_CACHE:-$root/.cache}/image
mkdir -p "$cache"
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
build() { buildah --root "$cache/store" --runroot "$cache/run" "$@"; }

# shellcheck source=../children.sh
source scripts/children.sh
container=
finish() {
    trap - EXIT INT TERM
    end_children
    [ -z "$container" ] || build rm "$container" >/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
proved() { echo "proved: $*"; }

# --- the image -----------------------------------------------------------------------------------

base=docker.io/library/debian:bookworm-slim
if ! build inspect --type image "$base" >/dev/null 2>&1; then
    debootstrap --variant=minbase bookworm "$cache/base" http://deb.debian.org/debian >"$cache/base.log"
    container=$(build from scratch)
    build copy -q "$container" "$cache/base" / >/dev/null
    build commit -q "$container" "$base" >/dev/null
    build rm "$container" >/dev/null
    container=
fi
options=(--format docker --layers --network host -t pgsluice:proof)
options+=(--build-arg "PROFILE=${PROFILE:-release}")
rust=$(sed -n 's/^FROM \(.*rust:.*\) AS build$/\1/p' Dockerfile)
what="its build stage on $rust"
if [ "${1:-}" = --own-toolchain ]; then
    what="its build stage on Debian's base with this machine's $(rustc --version)"
    options+=(--pull-never)
    if ! build inspect --type image "$rust" >/dev/null 2>&1; then
        container=$(build from --pull-never "$base")
        build run --network host "$container" -- sh -c \
            'apt-get update && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev' \
            >"$cache/rust.log" 2>&1 || { tail -n 20 "$cache/rust.log" >&2; exit 1; }
        tree=$(build mount "$container")
        mkdir "$tree/usr/local/rust"
        cp -r "$(rustc --print sysroot)"/{bin,lib} "$tree/usr/local/rust/"
        # Crates are fetched as on this machine, which may trust additional authorities.
        cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
        build config --env "PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$container"
        build commit -q "$container" "$rust" >/dev/null
        build rm "$container" >/dev/null
        container=
    fi
elif [ $# -gt 0 ]; then
    what="its build stage replaced by $1"
    mkdir -p "$work/build/out"
    strip -g -o "$work/build/out/pgsluice" "$1"
    options+=(--pull-never --build-context "build=$work/build")
fi
build bud "${options[@]}" . >"$cache/build.log" 2>&1 || { tail -n 40 "$cache/build.log" >&2; exit 1; }
proved "the Dockerfile builds, $what"
config=$(build inspect --type image --format '{{.Docker.Config.User}} {{.Docker.Config.StopSignal}} {{.Docker.Config.Entrypoint}} {{.Docker.Config.Cmd}} {{.Docker.Config.Healthcheck.Test}}' pgsluice:proof)
[ "$config" = "65532:65532 SIGTERM [/usr/local/bin/pgsluice] [run] [CMD /usr/local/bin/pgsluice health]" ] || {
    echo "unexpected image configuration: $config" >&2
    exit 1
}
proved "its configuration is as expected: $config"

# --- the root file system, as a container engine would run it -------------------------------------

container=$(build from --pull-never pgsluice:proof)
tree=$(build mount "$container")
mkdir -p "$tree/etc/pgsluice"
cp config/demo.toml "$tree/etc/pgsluice/pgsluice.toml"
# Runs a command inside. The command replaces the process, so that signals reach it.
inside='
    set -e
    mount --bind "$0" "$0"
    mount -t proc -o nosuid,nodev,noexec proc "$0/proc"
    mount -o remount,bind,ro "$0"
    cd "$0"
    exec chroot "$0" /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs \
        --bounding-set=-all --inh-caps=-all -- "$@"'
inside() { unshare --mount --propagation private sh -c "$inside" "$tree" "$@"; }
[ "$(inside /usr/bin/id -u)" = 65532 ]
if inside /usr/bin/touch /tmp/x /etc/x 2>/dev/null; then
    echo "the root file system is writable" >&2
    exit 1
fi
[ "$(inside /bin/grep CapEff /proc/self/status | tr -d '[:space:]')" = CapEff:0000000000000000 ]
proved "it runs as user 65532, without capabilities, and nothing is writable"
pgsluice=/usr/local/bin/pgsluice
inside "$pgsluice" --version
proved "the program takes $(stat -c %s "$tree$pgsluice" | numfmt --to=iec), the image $(du -sh "$tree" | cut -f1)"

start postgres scripts/postgres/run.sh "$work/postgres" fsync=off
scripts/kafka/fetch.sh >/dev/null
start kafka scripts/kafka/run.sh "$work/kafka"
until_ok "Kafka starts" 60 kafka test -s "$work/kafka/bootstrap.servers"
until_ok "PostgreSQL starts" 60 postgres test -s "$work/postgres/url"
brokers=$(cat "$work/kafka/bootstrap.servers")
url=$(cat "$work/postgres/url")
sql() { psql -X -q -At "$url" "$@"; }
until_ok "Kafka listens" 60 kafka wait_port "${brokers##*:}" 1
until_ok "PostgreSQL answers" 30 postgres sql -c 'select 1'
sql -f demo/schema.sql
cargo build -q -p pgsluice-demo
"${CARGO_TARGET_DIR:-$root/target}/debug/pgsluice-demo" produce --brokers "$brokers" --pace 1ms >"$work/story"
sent=$(wc -l <"$work/story")

port=$(free_port)
export PGSLUICE__KAFKA__BROKERS=$brokers PGSLUICE__POSTGRES__URL=$url
export PGSLUICE__ADMIN__LISTEN=0.0.0.0:$port
if inside "$pgsluice" health 2>/dev/null; then
    echo "the health check passes without a daemon" >&2
    exit 1
fi
start pgsluice unshare --mount --propagation private sh -c "$inside" "$tree" \
    "$pgsluice" run --config /etc/pgsluice/pgsluice.toml
daemon=${children[-1]}
until_ok "the daemon is ready" 60 pgsluice inside "$pgsluice" health --ready
inside "$pgsluice" health
all_done() { [ "$(sql -c 'select count(*) from pgsluice.notification')" -ge "$sent" ]; }
until_ok "every record has an outcome" 60 pgsluice all_done
sql -F ' ' -c 'select status, count(*) from pgsluice.notification group by 1 order by 1'
proved "every record has an outcome; $(sql -c 'select count(*) from public.customer') customers"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
[ "$status" -eq 0 ] || { tail -n 20 "$work/pgsluice.log" >&2; exit 1; }
proved "after SIGTERM it ends with exit code 0"
