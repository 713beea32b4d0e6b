#!/usr/bin/env bash
# run.sh DIR [SETTING...]: runs a temporary PostgreSQL on a free loopback port, with its data in DIR.
# It writes the URL to DIR/url, then becomes the server; SIGINT stops it. Each SETTING is a server
# setting such as shared_buffers=512MB. If root runs this, the server runs as user postgres, because
# PostgreSQL refuses to run as root.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../ports.sh
source "$here/../ports.sh"

dir=${1:?usage: run.sh DIR [SETTING...]}
shift
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || bin=$(pg_config --bindir 2>/dev/null) || {
    echo "run.sh: PostgreSQL is missing; run scripts/install.sh" >&2
    exit 3
}

mkdir -p "$dir/cluster"
unprivileged=()
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$dir/cluster"
    unprivileged=(setpriv --reuid=postgres --regid=postgres --clear-groups)
fi
cd /
if [ ! -e "$dir/cluster/data/PG_VERSION" ]; then
    "${unprivileged[@]}" "$bin/initdb" -A trust -U postgres -E UTF8 --locale=C.UTF-8 \
        -D "$dir/cluster/data" >"$dir/initdb.log"
fi
port=$(free_port)
settings=()
for setting in "port=$port" listen_addresses=127.0.0.1 "unix_socket_directories=$dir/cluster" "$@"; do
    settings+=(-c "$setting")
done
echo "postgres://postgres@127.0.0.1:$port/postgres" >"$dir/url"
# The server stops when the script that started it ends, however that ends.
exec "${unprivileged[@]}" setpriv --pdeathsig QUIT "$bin/postgres" -D "$dir/cluster/data" "${settings[@]}"
