#!/usr/bin/env bash
# A team's MLflow server: rows in PostgreSQL, files in S3, and user accounts.
#
# Settings are environment variables of MLflow's own, as compose.yaml and kubernetes/namespace.yaml give them:
#
#   MLFLOW_BACKEND_STORE_URI      postgresql+psycopg2://mlflow@HOST:5432/mlflow, without a password
#   MLFLOW_ARTIFACTS_DESTINATION  s3://BUCKET/FOLDER
#   MLFLOW_S3_ENDPOINT_URL        where S3 is, unless it is Amazon's
#   MLFLOW_SERVER_ALLOWED_HOSTS   by which names clients may call the server, ports included; others are rejected
#   MLFLOW_HOST, MLFLOW_PORT, MLFLOW_WORKERS
#
# Secrets are files of the folder MLFLOW_SECRETS, because anyone who may inspect a container can read its
# environment.
set -euo pipefail
umask 077

usage() {
    echo "usage: $(basename "$0") start | upgrade" >&2
    echo "  start    serves, as the environment says" >&2
    echo "  upgrade  brings the database to this MLflow's schema; stop every server and back up first" >&2
    exit 2
}
[ $# -eq 1 ] || usage
[ "$1" = start ] || [ "$1" = upgrade ] || usage

needed() {
    [ -n "${!1:-}" ] || { echo "error: $1: is not set; the head of $(basename "$0") explains it" >&2; exit 1; }
}
needed MLFLOW_BACKEND_STORE_URI
needed MLFLOW_SECRETS

secret() {
    local file=$MLFLOW_SECRETS/$1
    if ! [ -s "$file" ] || ! [ -r "$file" ]; then
        echo "error: $file: is empty or not there for user $(id -u); deploy/mlflow/README.md explains its content" >&2
        exit 1
    fi
    cat "$file"
}
# PostgreSQL's own library reads it; so no URI holds it, and no error shows it.
PGPASSWORD=$(secret database-password)
export PGPASSWORD DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true

if [ "$1" = upgrade ]; then
    mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
    exec python -m mlflow.server.auth db upgrade --url "$MLFLOW_BACKEND_STORE_URI"
fi
needed MLFLOW_ARTIFACTS_DESTINATION
needed MLFLOW_SERVER_ALLOWED_HOSTS

# Without this file the keys come from the cloud's identity of the machine or the pod.
[ ! -e "$MLFLOW_SECRETS/s3-credentials" ] || export AWS_SHARED_CREDENTIALS_FILE=$MLFLOW_SECRETS/s3-credentials

# MLflow's user table. EDIT: every user may write to every experiment, because a team's runs are in one, and may delete
# only their own. A password is checked slowly, on purpose; remembered for a
# minute, it costs little in each of the hundreds of requests that send a model.
auth=$(mktemp -d)
cat >"$auth/auth.ini" <<AUTH
[mlflow]
database_uri = ${MLFLOW_BACKEND_STORE_URI//%/%%}
default_permission = EDIT
admin_username = admin
auth_cache_ttl_seconds = 60
AUTH
MLFLOW_AUTH_ADMIN_PASSWORD=$(secret admin-password)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret session-key)
export MLFLOW_AUTH_CONFIG_PATH=$auth/auth.ini MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY

# Jobs are for language models, and take some GB.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec mlflow server --app-name basic-auth --serve-artifacts
