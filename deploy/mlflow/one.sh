#!/usr/bin/env bash
# MLflow for one person: rows in SQLite, files beside it, on this machine only.
set -euo pipefail
umask 077

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: $(basename "$0") STATE [PORT]" >&2
    echo "  STATE  folder for mlflow.db and artifacts, on a disk of this machine and not on NFS" >&2
    echo "  PORT   on 127.0.0.1; 5000 when not given" >&2
    exit 2
fi
command -v mlflow >/dev/null ||
    { echo "error: mlflow: not found; activate the environment that ganseg is installed in" >&2; exit 1; }
mkdir -p "$1"
chmod 700 "$1"
state=$(cd "$1" && pwd)
case $state in *[%?#]*) # MLflow would keep its database beside it
    echo "error: $state: holds one of % ? #, which have a meaning in a database's address; choose another folder" >&2; exit 1 ;;
esac

export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # jobs are for language models, and take some GB
exec mlflow server --host 127.0.0.1 --port "${2:-5000}" --workers 1 \
    --backend-store-uri "sqlite:///$state/mlflow.db" --serve-artifacts --artifacts-destination "$state/artifacts"
