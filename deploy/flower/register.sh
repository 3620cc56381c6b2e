#!/usr/bin/env bash
# Registers a hospital's node: its public key and the name that the key speaks for. Run on the server's machine, while
# the server runs. A second call completes one that was interrupted.
set -euo pipefail

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $(basename "$0") STATE NODE.pub [NAME]" >&2
    echo "  STATE     the folder that server.sh was given" >&2
    echo "  NODE.pub  the public key that the hospital sent" >&2
    echo "  NAME      the hospital's name, as in its own settings; NODE when not given" >&2
    exit 2
fi
[ -r "$1/flower/config.toml" ] || { echo "error: $1: is no server's folder; start server.sh with it first" >&2; exit 1; }
[ -r "$2" ] || { echo "error: $2: cannot be read; check the path" >&2; exit 1; }
if grep -q "PRIVATE KEY" "$2"; then
    echo "error: $2: is a secret key; give ${2%.key}.pub, and never send the other" >&2; exit 1
fi
umask 077

export FLWR_HOME=$(cd "$1" && pwd)/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
exec python -m server.registration register "$@"
