#!/usr/bin/env bash
# Registers a hospital's node by its public key. Run on the server's machine, while the server runs.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $(basename "$0") STATE NODE.pub" >&2
    echo "  STATE     the folder that server.sh was given" >&2
    echo "  NODE.pub  the public key that the hospital sent" >&2
    exit 2
fi
[ -r "$1/flower/config.toml" ] || { echo "error: $1: is no server's folder; start server.sh with it first" >&2; exit 1; }
[ -r "$2" ] || { echo "error: $2: cannot be read; check the path" >&2; exit 1; }
if grep -q "PRIVATE KEY" "$2"; then
    echo "error: $2: is a secret key; give ${2%.key}.pub, and never send the other" >&2; exit 1
fi

export FLWR_HOME=$(cd "$1" && pwd)/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
key=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
cd "$FLWR_HOME"
exec flwr supernode register "$key" federation --name "$(basename "$2" .pub)"
