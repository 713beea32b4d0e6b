#!/usr/bin/env bash
# Installs what the build, the tests and the demo need in addition to the Rust toolchain: a C++
# compiler and the libraries that librdkafka is linked with, PostgreSQL, and a JVM with Maven for the
# real Kafka. For Debian 12 and its derivatives. Quickly does nothing if everything is installed.
set -euo pipefail

missing=()
# need PACKAGE COMMAND...: the package is missing when the command fails.
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
installed_server() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' || pg_config --bindir
}
header() {
    echo "#include <$1>" | g++ -E -x c++ - -o /dev/null
}

need g++ command -v g++
need make command -v make
need openssl command -v openssl
need pkg-config command -v pkg-config
need libssl-dev header openssl/ssl.h
need zlib1g-dev header zlib.h
need libzstd-dev header zstd.h
need postgresql installed_server
need postgresql-client command -v psql
need default-jre-headless command -v java
need maven command -v mvn
need curl command -v curl
need procps command -v pgrep
need util-linux command -v setpriv

[ "${#missing[@]}" -gt 0 ] || exit 0

echo "install.sh: installing missing packages with apt-get (may take minutes): ${missing[*]}"
command -v apt-get >/dev/null || {
    echo "install.sh: apt-get not found; please install the packages with your system's package manager" >&2
    exit 3
}
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install.sh: not root, and sudo not found; please install the packages as root" >&2
        exit 3
    }
    as_root=(sudo)
fi
apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq "$@"
}
if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
    echo "install.sh: apt has no package lists; fetching them"
    apt update
fi
apt install --no-install-recommends "${missing[@]}" || {
    echo "install.sh: installation failed; retrying with fresh package lists"
    apt update
    apt install --no-install-recommends "${missing[@]}"
}
