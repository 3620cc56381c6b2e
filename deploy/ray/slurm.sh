#!/usr/bin/env bash
# Trains on Slurm: a Ray cluster over the job's nodes for as long as the training takes.
#
#   sbatch --nodes=2 --gpus-per-task=1 deploy/ray/slurm.sh ganet_seg --data /data/cohort --run-name first
#
# The arguments are those of `ganseg train`; the script adds --workers and --gpus: one worker per GPU, or per node.
# Options of sbatch override those below. Submit from the environment that ganseg is installed in, with GANSEG_RUNS on
# storage that all nodes share.
#
# Before its time limit the training gets a signal to end, and the job queues again and resumes from the last
# checkpoint. Slurm also requeues a preempted job and one whose node failed. The time limit must be enough for an epoch.
#
# Whole nodes: symmetric-run does not start where a Ray already runs, and `ray stop`, its last step, ends every Ray
# process of yours on the node, another job's too.
#SBATCH --job-name=ganseg
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch [--nodes=N] [--gpus-per-task=N] slurm.sh RECIPE --data DATA --run-name NAME [OPTION ...]" >&2
    echo "  RECIPE, OPTION  as ganseg train takes them, without --workers and --gpus" >&2
    exit 2
fi
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: slurm.sh: is no job yet; submit it with sbatch" >&2; exit 1; }
command -v ray >/dev/null ||
    { echo "error: ray: not found; submit from the environment that ganseg is installed in" >&2; exit 1; }
[ -d "${GANSEG_RUNS:-}" ] ||
    { echo "error: GANSEG_RUNS=${GANSEG_RUNS:-}: is no folder; name one that all nodes share" >&2; exit 1; }

# Nodes of other people's jobs are on the same network: the token keeps them out. Slurm hands it to the tasks.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
export RAY_USAGE_STATS_ENABLED=0 DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true

nodes=$SLURM_JOB_NUM_NODES cpus=$SLURM_CPUS_PER_TASK
address=$SLURMD_NODENAME:6379 # this script runs on the first node, which becomes the head
ray=(--num-cpus="$cpus") training=(--workers "$nodes")
if [ -n "${SLURM_GPUS_PER_TASK:-}" ]; then
    gpus=${SLURM_GPUS_PER_TASK##*:} # a100:4 is 4
    ray+=(--num-gpus="$gpus")
    training=(--workers "$((nodes * gpus))" --gpus)
fi

# How the training gets its signal, and how it ended: symmetric-run exits with 0 even when Ray did not start.
notes=$GANSEG_RUNS/.slurm-$SLURM_JOB_ID
rm -rf "$notes" && mkdir "$notes"
trap 'rm -rf "$notes"' EXIT
# shellcheck disable=SC2016 # is expanded on the head, by the bash that symmetric-run starts there
train='python -m ganseg_dist train "$@" & echo $! >"$0/pid"; wait $!; echo $? >"$0/status"'

over= step=
end() { # the training alone: a signal to the step would reach Ray too, and end it first
    over=yes
    kill -TERM "$(cat "$notes/pid" 2>/dev/null || echo "$step")" 2>/dev/null || true
}
trap end USR1

srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" \
    ray symmetric-run --address "$address" --min-nodes "$nodes" "${ray[@]}" -- \
    env RAY_ADDRESS="$address" bash -c "$train" "$notes" "$@" "${training[@]}" &
step=$!
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a trapped signal ends a wait early

[ -s "$notes/status" ] || echo "error: slurm.sh: the training did not end by itself; the reason is above" >&2
status=$(cat "$notes/status" 2>/dev/null || echo 1)
if [ -n "$over" ] && [ "$status" -ne 0 ]; then
    echo "note: the time is up; the job queues again and resumes from the last checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
