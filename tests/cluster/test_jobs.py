"""Ray jobs: entry point, upload and exit code."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import ganseg_dist.cluster.jobs as ray_jobs
from ganseg_dist.cluster.jobs import (
    Submission,
    check_runs_folder,
    check_upload_size,
    connect,
    exit_code,
    follow,
    job_arguments,
    submit,
)
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.runs import Run
from tests.cluster.ray_head import ray_head

TRAIN = ("train", "ganet_seg_debug", "--data", "/data/a b", "--run-name", "first")


class Cluster:
    """A job client that accepts jobs and runs none."""

    def __init__(self, jobs: dict[str, str] | None = None, args=None, env=None) -> None:
        self.jobs, self.submitted = dict(jobs or {}), {}
        self.submission = Submission(args or TRAIN, env or {})

    def list_jobs(self):
        facts = {"entrypoint": self.submission.entrypoint, "runtime_env": self.submission.runtime_env()}
        return [SimpleNamespace(submission_id=name, status=status, **facts) for name, status in self.jobs.items()]

    def submit_job(self, *, entrypoint, submission_id, runtime_env):
        self.submitted = {"entrypoint": entrypoint, "runtime_env": runtime_env}
        self.jobs[submission_id] = "PENDING"
        return submission_id


def test_submit_passes_command_and_environment_to_ray():
    cluster = Cluster()
    assert submit(cluster, Submission(TRAIN, {"GANSEG_RUNS": "/runs"})) == ("train-first", True)
    assert cluster.submitted["entrypoint"] == (
        "python -m ganseg_dist train ganet_seg_debug --data '/data/a b' --run-name first"
    )
    assert cluster.submitted["runtime_env"] == {"env_vars": {"GANSEG_RUNS": "/runs"}}


def test_submit_follows_running_job_and_restarts_ended_job():
    submission = Submission(TRAIN)
    assert submit(Cluster({"train-first": "RUNNING", "train-firstborn": "RUNNING"}), submission) == (
        "train-first",
        False,
    )
    assert submit(Cluster({"train-first": "FAILED"}), submission) == ("train-first-2", True)
    assert submit(Cluster({"train-first": "STOPPED", "train-first-2": "SUCCEEDED"}), submission) == (
        "train-first-3",
        True,
    )


def test_submit_rejects_other_arguments_for_run_in_progress():
    running = Cluster({"train-first": "RUNNING"})
    with pytest.raises(RunError, match="first: is being made by job train-first, with other arguments"):
        submit(running, Submission((*TRAIN, "--set", "train.epochs=9")))
    assert submit(running, Submission(TRAIN, {"GANSEG_RUNS": "/mine"})) == ("train-first-2", True), "another's runs"
    unnamed = ("train", "ganet_seg_debug", "--data", "/data")
    cluster = Cluster({"train-ganet_seg_debug": "RUNNING"}, unnamed)
    other = Submission((*unnamed, "--set", "train.seed=5"))
    assert submit(cluster, other) == ("train-ganet_seg_debug-2", True), "its run has a name of its own"


def test_submit_rejects_working_dir_without_package(tmp_path):
    with pytest.raises(RunError, match="holds no ganseg_dist; give the folder of the code"):
        submit(Cluster(), Submission(TRAIN, working_dir=tmp_path))


def test_submit_command_passes_trailing_arguments_to_job(monkeypatch):
    from typer.testing import CliRunner

    from ganseg_dist.cli.main import app

    args = []
    monkeypatch.setattr(ray_jobs, "connect", lambda address: Cluster())
    monkeypatch.setattr(ray_jobs, "submit", lambda client, job: args.append(job.arguments) or ("job", True))
    for dashes in (["--"], []):
        result = CliRunner().invoke(app, ["submit", "--detach", *dashes, *TRAIN])
        assert result.exit_code == 0, result.output
    assert args == [TRAIN, TRAIN]


def test_job_arguments_rejects_relative_paths():
    for option, path in (("--data", "cohort"), ("--labels", "own.json")):
        with pytest.raises(ConfigError, match=f"{option} {path}: is relative to this folder"):
            job_arguments(("train", "ganet_seg", option, path), ("train",))
    assert job_arguments(("train", "ganet_seg", "--labels", "brats2023"), ("train",))


def test_submission_name_comes_from_run_name_or_leading_arguments():
    assert Submission(("experiment", "folds", "ganet_seg", "--data", "x")).name == "experiment-folds-ganet_seg"
    assert Submission(("train", "--resume", "first")).name == "train-first"
    assert Submission(("train", "--run-name=first", "ganet_seg")).name == "train-first"
    assert Submission(("train", "ganet_seg", "--run-name")).run_name is None, "the command itself rejects it"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 2, 2),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
        ("JobStatus.STOPPED", -15, 130),
    ],
)
def test_exit_code_is_that_of_driver(status, code, message):
    assert exit_code(SimpleNamespace(status=status, driver_exit_code=code)) == message


def test_follow_writes_log_once_to_its_end(monkeypatch):
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", 0.0)
    steps = iter([("PENDING", ""), ("RUNNING", "epoch 1\n"), ("RUNNING", "epoch 1\n"), ("SUCCEEDED", "epoch 1\nend\n")])
    now = {}

    def info(job):
        now["status"], now["log"] = next(steps)
        return SimpleNamespace(status=now["status"], driver_exit_code=0)

    written = []
    client = SimpleNamespace(get_job_info=info, get_job_logs=lambda job: now["log"])
    assert follow(client, "job", written.append) == 0
    assert "".join(written) == "epoch 1\nend\n"


def test_submit_rejects_oversized_working_dir(tmp_path, monkeypatch):
    (tmp_path / "ganseg_dist").mkdir()
    (tmp_path / "ganseg_dist" / "__init__.py").write_text("pass\n")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "scan.nii").write_bytes(os.urandom(3 * 2**20))
    assert 3 * 2**20 < check_upload_size(tmp_path) < 4 * 2**20
    monkeypatch.setattr(ray_jobs, "MOST_BYTES", 2 * 2**20)
    with pytest.raises(RunError, match=r"is 3 MiB, and a job may upload 2; .* the largest being images \(3 MiB\)"):
        submit(Cluster(), Submission(TRAIN, working_dir=tmp_path))
    (tmp_path / ".rayignore").write_text("/images/\n")
    assert check_upload_size(tmp_path) < 10_000


def test_check_upload_size_honours_gitignore_unless_disabled(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "scan.nii").write_bytes(bytes(5000))
    (tmp_path / ".gitignore").write_text("images/\n")
    assert check_upload_size(tmp_path) < 1000
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert check_upload_size(tmp_path) > 5000


def test_check_runs_folder_rejects_uploaded_working_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("GANSEG_RUNS_URI", raising=False)
    check_runs_folder(tmp_path / "runs")
    uploaded = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_5e1f" / "runs"
    with pytest.raises(ConfigError, match="GANSEG_RUNS: this job's runs would lie in the uploaded code"):
        check_runs_folder(uploaded)
    monkeypatch.setenv("GANSEG_RUNS_URI", "s3://bucket/runs")
    check_runs_folder(uploaded)


def test_job_arguments_and_connect_reject_unknown_command_and_address():
    with pytest.raises(ConfigError, match="submit: predict is no command to submit; give one of train"):
        job_arguments(["predict"], ("train",))
    with pytest.raises(RunError, match=r"--address http://127.0.0.1:9: no Ray cluster takes jobs there"):
        connect("http://127.0.0.1:9")


@pytest.mark.parametrize("name", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_connect_uses_given_address_despite_environment(name, monkeypatch):
    monkeypatch.setenv(name, "http://127.0.0.1:7")
    addresses = []
    monkeypatch.setattr("ray.dashboard.modules.job.sdk.JobSubmissionClient._check_connection_and_version",
                        lambda self, *args, **kwargs: addresses.append(self.get_address()))  # fmt: skip
    connect("http://127.0.0.1:9")
    assert set(addresses) == {"http://127.0.0.1:9"}
    assert os.environ[name] == "http://127.0.0.1:7"


@pytest.fixture
def head(monkeypatch):
    """The dashboard address of a head node."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_head() as address:
        yield address


@pytest.mark.slow
@pytest.mark.usefixtures("own_runs")
def test_submit_command_follows_job_and_resumes_stopped_job(head, phantom, tmp_path):
    root = Path(__file__).parents[2]

    def ganseg(*args: str, run: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable, "-m", "ganseg_dist", "submit", "--address", head, *args, "--", "train", "ganet_seg_debug",
            "--data", str(phantom), "--run-name", run,
        ]  # fmt: skip
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)

    done = ganseg(run="first")
    assert done.returncode == 0, done.stderr
    assert f"finished: {tmp_path / 'runs' / 'first'}" in done.stdout
    assert "submitted: train-first" in done.stderr

    wrong = ganseg("--env", "GANSEG_STORE=/proc/nowhere", run="bad/name")
    assert wrong.returncode == 2, "the command's own exit code"
    assert "--run-name 'bad/name'" in wrong.stdout

    started = ganseg("--detach", run="stopped")
    assert started.returncode == 0, started.stderr
    run = Run(tmp_path / "runs" / "stopped")
    deadline = time.monotonic() + 150
    while not list(run.checkpoints.glob("step-*")):
        assert time.monotonic() < deadline, "no epoch was trained"
        time.sleep(0.2)
    client = connect(head)
    client.stop_job("train-stopped")
    while not str(client.get_job_status("train-stopped")).endswith(("STOPPED", "SUCCEEDED")):
        assert time.monotonic() < deadline + 60, "the job does not stop"
        time.sleep(0.5)
    again = ganseg(run="stopped")
    assert again.returncode == 0, again.stderr
    assert run.finished
