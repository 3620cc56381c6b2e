#!/usr/bin/env bash
# Starts the federation's server: Flower's SuperLink with TLS, node authentication and a persistent state.
# Hospitals reach only what nodes need; registering and running work on this machine only (server/superlink.py).
set -euo pipefail
umask 077  # the database contains updates of hospitals

if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: $(basename "$0") STATE CERTIFICATES [PORT]" >&2
    echo "  STATE         folder for what the server remembers: its database, its connection, its runs" >&2
    echo "  CERTIFICATES  folder with ca.crt, server.crt and server.key, as ganseg certificates writes them" >&2
    echo "  PORT          that nodes connect to; 9092 when not given" >&2
    exit 2
fi
command -v flower-superexec >/dev/null || { echo "error: flower-superexec: not found; activate the environment that ganseg is installed in" >&2; exit 1; }
for file in ca.crt server.crt server.key; do
    [ -r "$2/$file" ] || { echo "error: $2/$file: cannot be read; make it with: ganseg certificates $2 --host NAME" >&2; exit 1; }
done
mkdir -p "$1"
chmod 700 "$1"
state=$(cd "$1" && pwd) certificates=$(cd "$2" && pwd) port=${3:-9092}
case $state in *[%?#]*) # Flower would keep its database beside it
    echo "error: $state: holds one of % ? #, which have a meaning in a database's address; choose another folder" >&2; exit 1 ;;
esac

export FLWR_HOME=$state/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export GANSEG_RUNS=${GANSEG_RUNS:-$state/runs} GANSEG_SITES=$state/sites.json DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true

# The connection of register.sh and run.sh.
mkdir -p "$FLWR_HOME"
cat >"$FLWR_HOME/config.toml" <<CONNECTION
[superlink]
default = "federation"

[superlink.federation]
address = "127.0.0.1:$port"
root-certificates = "$certificates/ca.crt"
CONNECTION

cd "$state"
exec python -m server.superlink \
    --host 0.0.0.0 --port "$port" --database "$state/superlink.db" --enable-supernode-auth \
    --ssl-ca-certfile "$certificates/ca.crt" --ssl-certfile "$certificates/server.crt" \
    --ssl-keyfile "$certificates/server.key"
