#!/usr/bin/env bash
# manifests.sh: validates the files in deploy/ against their schemas (the Compose specification, the
# Kubernetes API, systemd), each with a tool that ships the schema. The Python packages are installed
# into .cache/manifests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
tools=${PGSLUICE_CACHE:-$root/.cache}/manifests
if [ ! -x "$tools/bin/kubernetes-validate" ]; then
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q check-jsonschema kubernetes-validate
fi
"$tools/bin/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml
"$tools/bin/kubernetes-validate" --strict deploy/kubernetes/*.yaml
if command -v systemd-analyze >/dev/null; then
    unit=$(mktemp -d)
    trap 'rm -rf "$unit"' EXIT
    # The program need not be installed here; everything else is checked.
    sed 's|/usr/local/bin/pgsluice|/bin/true|' deploy/systemd/pgsluice.service >"$unit/pgsluice.service"
    systemd-analyze verify "$unit/pgsluice.service"
    systemd-analyze security --offline=true --threshold=25 "$unit/pgsluice.service" | tail -n 1
fi
echo "manifests ok"
