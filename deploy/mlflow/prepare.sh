#!/usr/bin/env bash
# Creates the folder of compose.yaml: data, and random secrets. Existing files are kept.
set -euo pipefail
umask 077

if [ $# -ne 1 ]; then
    echo "usage: $(basename "$0") HOME" >&2
    echo "  HOME  folder for the database, the files and the secrets; on a disk of this machine" >&2
    exit 2
fi
mkdir -p "$1"
chmod 700 "$1"
home=$(cd "$1" && pwd)
mkdir -p "$home/database" "$home/s3" "$home/secrets"

drawn() { # BYTES: as hexadecimal digits
    od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'
}
once() { # NAME: a secret from standard input, unless there is one
    if [ -s "$home/secrets/$1" ]; then cat >/dev/null; else cat >"$home/secrets/$1"; fi
}
drawn 24 | once database-password
drawn 24 | once admin-password
drawn 32 | once session-key

# One key in two formats: for the server's S3 client, and for SeaweedFS.
if [ ! -s "$home/secrets/s3.json" ]; then
    key=mlflow-$(drawn 6) word=$(drawn 24)
    once s3-credentials <<INI
[default]
aws_access_key_id = $key
aws_secret_access_key = $word
INI
    once s3.json <<JSON
{"identities": [{
    "name": "mlflow",
    "credentials": [{"accessKey": "$key", "secretKey": "$word"}],
    "actions": ["Admin", "Read", "Write", "List", "Tagging"]
}]}
JSON
fi

# Containers run as who ran this; as the image's user where that was root.
owner=$(id -u):$(id -g)
if [ "$owner" = 0:0 ]; then
    owner=1000:1000
    chown -R "$owner" "$home"
fi
cat >"$home/compose.env" <<ENV
MLFLOW_HOME=$home
MLFLOW_USER=$owner
ENV
echo "next: docker compose --env-file $home/compose.env --file $(cd "$(dirname "$0")" && pwd)/compose.yaml up --detach"
