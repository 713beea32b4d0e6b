#!/usr/bin/env bash
# Fetches Apache Kafka's jars from Maven Central, once, into .cache/kafka/<version>/ and prints
# that directory. pom.xml, next to this script, has the version and the list of jars.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$here/pom.xml")
lib="${PGSLUICE_CACHE:-$root/.cache}/kafka/$version"

if [ ! -e "$lib/.complete" ]; then
    command -v mvn >/dev/null || {
        echo "fetch.sh: Maven is missing; run scripts/install.sh" >&2
        exit 3
    }
    echo "fetching Apache Kafka $version from Maven Central into $lib (about 50 MB, once)" >&2
    # Two test processes may get here at the same time. Each fills its own directory, and the first
    # rename wins.
    mkdir -p "$(dirname "$lib")"
    staging=$(mktemp -d "$lib.XXXXXX")
    trap 'rm -rf "$staging"' EXIT
    cp "$here/pom.xml" "$staging/pom.xml"
    mvn -q -B -f "$staging/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$staging/lib" >&2
    touch "$staging/lib/.complete"
    [ -e "$lib/.complete" ] || { rm -rf "$lib" && mv -T "$staging/lib" "$lib"; }
fi
echo "$lib"
