"""deploy/ray/slurm.sh, run as Slurm would with stand-ins for srun, ray, python and scontrol."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.scripts.scripts import start as ray_start
from ray.scripts.symmetric_run import curate_and_validate_ray_start_args

from tests.deploy.manifests import RAY, training_arguments

SCRIPT = RAY / "slurm.sh"
SBATCH_OPTIONS = """
    account acctg-freq array batch bb bbf begin chdir clusters comment constraint container contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error exclude
    exclusive export export-file extra-node-info get-user-env gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep licenses mail-type mail-user
    mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue nodefile nodelist nodes
    ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit oversubscribe
    parsable partition prefer priority profile propagate qos quiet reboot requeue reservation signal sockets-per-node
    spread-job switches test-only thread-spec threads-per-core time time-min tmp tres-per-task uid use-min-nodes
    verbose wait wait-all-nodes wckey wrap
"""
"""The long options of sbatch's manual page."""
SBATCH_FLAGS = frozenset({"exclusive", "requeue", "no-requeue", "contiguous", "hold", "overcommit", "reboot", "wait"})
"""Those of them that stand without a value."""

SRUN = """#!/bin/bash
# Starts the head's task alone, as one node of the job.
printf '%s\\n' "$@" >"$CALLS/srun"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SYMMETRIC_RUN = """#!/bin/bash
printf '%s\\n' "$@" >"$CALLS/ray"
env >"$CALLS/environment"
[ -n "${NO_RAY:-}" ] && exit 0  # as symmetric-run ends when `ray start` failed
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
PYTHON = """#!/bin/bash
printf '%s\\n' "$@" >"$CALLS/python"
echo "$RAY_ADDRESS" >"$CALLS/address"
trap 'exit 130' TERM
[ -z "${ENDLESS:-}" ] || { touch "$CALLS/training"; while :; do sleep 0.05; done; }
exit "${CODE:-0}"
"""
SCONTROL = """#!/bin/bash
printf '%s\\n' "$@" >"$CALLS/scontrol"
"""
JOB = {"SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "SLURMD_NODENAME": "node07"}
WORDS = ("ganet_seg", "--data", "/data/cohort of two", "--run-name", "first")


def directives() -> dict[str, str | None]:
    """The script's #SBATCH options with their values."""
    lines = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    found: dict[str, str | None] = {}
    for line in lines:
        matched = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
        assert matched, line
        found[matched[1]] = matched[2]
    assert len(found) == len(lines)
    return found


def test_directives_are_options_of_sbatch():
    for option, value in directives().items():
        assert option in SBATCH_OPTIONS.split()
        assert (value is None) == (option in SBATCH_FLAGS), option


def test_directives_come_before_the_first_command():
    """Where sbatch stops reading them."""
    lines = SCRIPT.read_text().splitlines()
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first_command:] if line.startswith("#SBATCH")]


@dataclass(frozen=True)
class Slurm:
    """Starts the script; the stand-ins write their arguments, one a line, into `calls`."""

    environment: dict[str, str]
    calls: Path
    runs: Path

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**self.environment, **JOB, **variables}
        return subprocess.Popen(["bash", SCRIPT, *words], env=environment, stderr=subprocess.PIPE, text=True)

    def run(self, *words: str, **variables: str) -> tuple[int, str]:
        """The exit code, and what is on stderr."""
        return ended(self.start(*words, **variables))

    def arguments(self, program: str) -> list[str]:
        return (self.calls / program).read_text().splitlines()

    def called(self, program: str) -> bool:
        return (self.calls / program).exists()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=20)
    return process.returncode, error


@pytest.fixture
def slurm(tmp_path):
    calls, stand_ins, runs = (tmp_path / name for name in ("calls", "bin", "runs"))
    for folder in (calls, stand_ins, runs):
        folder.mkdir()
    for name, text in {"srun": SRUN, "ray": SYMMETRIC_RUN, "python": PYTHON, "scontrol": SCONTROL}.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "RAY_", "GANSEG_"))}
    path = f"{stand_ins}{os.pathsep}{os.environ['PATH']}"
    return Slurm(plain | {"PATH": path, "CALLS": str(calls), "GANSEG_RUNS": str(runs)}, calls, runs)


def test_two_nodes_with_two_gpus_each_train_with_four_workers(slurm):
    assert slurm.run(*WORDS, SLURM_GPUS_PER_TASK="a100:2") == (0, "")
    per_node = f"--ntasks-per-node={directives()['ntasks-per-node']}"
    assert slurm.arguments("srun")[:4] == ["--nodes=2", "--ntasks=2", per_node, "--cpus-per-task=8"]
    assert slurm.arguments("srun")[4:6] == ["ray", "symmetric-run"]
    training = slurm.arguments("python")
    assert training == ["-m", "ganseg_dist", "train", *WORDS, "--workers", "4", "--gpus"]
    assert slurm.arguments("address") == ["node07:6379"]
    arguments = training_arguments(["python", *training])
    assert (arguments["workers"], arguments["gpus"], str(arguments["data"])) == (4, True, "/data/cohort of two")
    assert "--num-gpus=2" in slurm.arguments("ray")


def test_nodes_without_gpus_train_with_one_worker_each(slurm):
    assert slurm.run(*WORDS) == (0, "")
    assert slurm.arguments("python")[-2:] == ["--workers", "2"]
    assert not [word for word in slurm.arguments("ray") if word.startswith("--num-gpus")]


@pytest.mark.parametrize("gpus", [{}, {"SLURM_GPUS_PER_TASK": "1"}], ids=["cpu", "gpu"])
def test_ray_start_accepts_the_options_that_symmetric_run_passes_on(slurm, gpus):
    slurm.run(*WORDS, **gpus)
    command, *words = slurm.arguments("ray")
    assert command == "symmetric-run"
    own = words[: words.index("--")]
    assert own[:4] == ["--address", "node07:6379", "--min-nodes", "2"]
    for role in (["--head", "--node-ip-address=10.0.0.7", "--port=6379"], ["--address", "node07:6379", "--block"]):
        options = ray_start.make_context("start", [*role, *curate_and_validate_ray_start_args(list(own))]).params
        assert options["num_cpus"] == 8
        assert options["num_gpus"] == (1 if gpus else None)


def test_every_job_has_its_own_token(slurm):
    tokens = set()
    for _ in range(2):
        slurm.run(*WORDS)
        environment = dict(line.split("=", 1) for line in slurm.arguments("environment") if "=" in line)
        assert environment["RAY_AUTH_MODE"] == "token"
        assert re.fullmatch(r"[0-9a-f]{64}", environment["RAY_AUTH_TOKEN"])
        tokens.add(environment["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2


def test_job_ends_with_the_exit_code_of_its_training(slurm):
    assert slurm.run(*WORDS, CODE="2") == (2, "")
    assert not slurm.called("scontrol")  # a user's error is not tried again


def test_job_fails_where_ray_did_not_start(slurm):
    code, error = slurm.run(*WORDS, NO_RAY="yes")
    assert code == 1
    assert error.startswith("error: slurm.sh: the training did not end by itself")
    assert len(error.splitlines()) == 1


def test_signal_before_the_time_limit_ends_the_training_and_requeues_the_job(slurm):
    assert "requeue" in directives()
    to_script, name, _ = re.split("[:@]", directives()["signal"])
    assert to_script == "B"  # to the script and not to its steps
    job = slurm.start(*WORDS, ENDLESS="yes")
    while not slurm.called("training"):
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.Signals[f"SIG{name}"])
    code, error = ended(job)
    assert code == 130  # the training's
    assert error.startswith("note: the time is up")
    assert slurm.arguments("scontrol") == ["requeue", "42"]
    assert list(slurm.runs.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "variables", "code", "message"),
    [
        ((), {}, 2, "usage: sbatch "),
        (WORDS, {"SLURM_JOB_ID": ""}, 1, "error: slurm.sh: is no job yet"),
        (WORDS, {"GANSEG_RUNS": "/nowhere"}, 1, "error: GANSEG_RUNS=/nowhere: is no folder"),
        (WORDS, {"GANSEG_RUNS": ""}, 1, "error: GANSEG_RUNS=: is no folder"),
    ],
    ids=["no words", "no job", "missing folder", "no folder"],
)
def test_missing_input_prints_one_line_and_starts_nothing(slurm, words, variables, code, message):
    found, error = slurm.run(*words, **variables)
    assert found == code
    assert error.startswith(message)
    assert code == 2 or len(error.splitlines()) == 1
    assert not slurm.called("srun")
