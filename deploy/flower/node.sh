#!/usr/bin/env bash
# Starts a hospital's node: Flower's SuperNode, which connects to the server and runs only code installed here.
# It opens no port to the outside. Stop it with Ctrl-C or SIGTERM; start it again to resume.
set -euo pipefail
umask 077  # the folder holds data derived from patients' images

if [ $# -lt 4 ] || [ $# -gt 5 ]; then
    echo "usage: $(basename "$0") HOME NODE.key ca.crt SERVER:PORT [LOCAL_PORT]" >&2
    echo "  HOME         the hospital's folder, with its site.toml, as ganseg site init writes it" >&2
    echo "  NODE.key     the node's secret key, as ganseg certificates writes it" >&2
    echo "  ca.crt       the authority's certificate, from the server's operator" >&2
    echo "  SERVER:PORT  as the server's certificate names it" >&2
    echo "  LOCAL_PORT   a free one of this machine, seen by it alone; 9094 when not given" >&2
    exit 2
fi
command -v flower-supernode >/dev/null || { echo "error: flower-supernode: not found; activate the environment that ganseg is installed in" >&2; exit 1; }
[ -r "$1/site.toml" ] || { echo "error: $1/site.toml: cannot be read; write one with: ganseg site init" >&2; exit 1; }
for file in "$2" "$3"; do
    [ -r "$file" ] || { echo "error: $file: cannot be read; check the path" >&2; exit 1; }
done
port=${5:-9094}
if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "error: port $port is taken on this machine; give LOCAL_PORT" >&2; exit 1
fi
case $(cd "$1" && pwd) in *\'*) # the node's config is quoted with it
    echo "error: $1: its path holds a ', which Flower cannot read; choose another folder" >&2; exit 1 ;;
esac
home=$(cd "$1" && pwd) here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
key=$(cd "$(dirname "$2")" && pwd)/$(basename "$2") authority=$(cd "$(dirname "$3")" && pwd)/$(basename "$3")

# Flower starts flwr-clientapp by its name for every message; node_bin holds one that rejects code from outside.
export PATH=$here/node_bin:$PATH
export FLWR_HOME=$home/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
export GANSEG_SITE=$home GANSEG_STORE=${GANSEG_STORE:-$home/store} DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true

cd "$home"
ganseg site check "$home"  # ends the script where site.toml cannot be used
exec python -m clients.supernode \
    --superlink "$4" --root-certificates "$authority" --auth-supernode-private-key "$key" \
    --node-config "home='$home'" --port "$port"
