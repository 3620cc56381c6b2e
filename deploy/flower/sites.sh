#!/usr/bin/env bash
# Lists the hospitals: names, fingerprints of their keys, and which are connected or revoked. Run on the server's machine.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: $(basename "$0") STATE" >&2
    echo "  STATE  the folder that server.sh was given" >&2
    exit 2
fi
[ -r "$1/flower/config.toml" ] || { echo "error: $1: is no server's folder; start server.sh with it first" >&2; exit 1; }

export FLWR_HOME=$(cd "$1" && pwd)/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
exec python -m server.registration list "$@"
