#!/usr/bin/env bash
# Revokes a hospital's key: from now on its node takes part in nothing, a run in progress included. It is final; the
# hospital can make another pair, which register.sh registers under the same name. Run on the server's machine.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $(basename "$0") STATE NAME" >&2
    echo "  STATE  the folder that server.sh was given" >&2
    echo "  NAME   the hospital's name, as sites.sh lists it" >&2
    exit 2
fi
[ -r "$1/flower/config.toml" ] || { echo "error: $1: is no server's folder; start server.sh with it first" >&2; exit 1; }
umask 077

export FLWR_HOME=$(cd "$1" && pwd)/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
exec python -m server.registration revoke "$@"
