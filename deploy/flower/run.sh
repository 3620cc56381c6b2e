#!/usr/bin/env bash
# Starts a federation with the registered nodes, and shows its log. Run on the server's machine.
# Ctrl-C stops the output, not the run. Rerun with the same run-name to resume an interrupted run.
# It exits with 0 only when the run has completed.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $(basename "$0") STATE KEY=VALUE ..." >&2
    echo "  STATE      the folder that server.sh was given" >&2
    echo "  KEY=VALUE  of the run, as [tool.flwr.app.config] in pyproject.toml lists them; recipe, run-name and" >&2
    echo "             least-sites are needed. Such as: recipe=ganet_seg_small run-name=first least-sites=3" >&2
    exit 2
fi
[ -r "$1/flower/config.toml" ] || { echo "error: $1: is no server's folder; start server.sh with it first" >&2; exit 1; }

export FLWR_HOME=$(cd "$1" && pwd)/flower FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1
app=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
shift
exec python -m server.submit "$app" "$@"
