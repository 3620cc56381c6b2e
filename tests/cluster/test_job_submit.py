"""`ray job submit --working-dir .`: the uploaded code runs, resumes and returns its own exit code."""

import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from ray.job_submission import JobDetails, JobSubmissionClient

from ganseg_dist.cluster.jobs import connect
from ganseg_dist.engine.checkpoint import FolderCheckpoints
from ganseg_dist.runs import Run
from tests.cluster.ray_head import BIN, ray_head, stock_environment

ROOT = Path(__file__).parents[2]
RUNTIME_ENV = ROOT / "deploy" / "ray" / "runtime_env.yaml"
PLAIN = ("--set", "system.gan=false", "--set", "train.epochs=2")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class FinishedJob:
    """A finished job and the output of `ray job submit`."""

    code: int
    output: str
    log: str
    """The job's own log; `ray job submit` shows it, and repeats its end after a failure."""
    details: JobDetails

    @property
    def exit_code(self) -> int | None:
        return self.details.driver_exit_code

    @property
    def status(self) -> str:
        return str(self.details.status).rpartition(".")[2]


@dataclass
class Cluster:
    """A Ray head with two CPUs and without ganseg settings, and storage that its nodes share."""

    address: str
    client: JobSubmissionClient
    storage: Path
    jobs: list[str] = field(default_factory=list)

    @property
    def runtime_env(self) -> Path:
        """The file of deploy/ray, with this storage in place of /runs."""
        options = yaml.safe_load(RUNTIME_ENV.read_text())
        options["env_vars"]["GANSEG_RUNS"] = str(self.storage / "runs")
        file = self.storage / "runtime_env.yaml"
        file.write_text(yaml.safe_dump(options))
        return file

    def run(self, name: str) -> Run:
        return Run(self.storage / "runs" / name)

    def ray(self, *args: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), "job", *map(str, args)]
        return subprocess.run(command, cwd=folder, env=stock_environment(), capture_output=True, text=True, timeout=900)

    def submit(
        self, *args: object, runtime_env: Path | None = None, folder: Path = ROOT, wait: bool = True
    ) -> FinishedJob:
        job = f"job-{len(self.jobs)}"
        self.jobs.append(job)
        known = self.runtime_env if runtime_env is None else runtime_env
        done = self.ray(
            "submit", "--address", self.address, "--submission-id", job, "--runtime-env", known, "--working-dir", ".",
            *([] if wait else ["--no-wait"]), "--", "python", "-m", "ganseg_dist", *args, folder=folder,
        )  # fmt: skip
        output, log = done.stdout + done.stderr, self.client.get_job_logs(job)
        return FinishedJob(done.returncode, output, log, self.client.get_job_info(job))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with ray_head() as address:
            yield Cluster(address, connect(address), tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def trained(cluster, phantom) -> FinishedJob:
    return cluster.submit("train", "ganet_seg_debug", "--data", phantom, "--run-name", "first", *PLAIN)


def assert_done(ended: FinishedJob, *messages: object) -> None:
    assert (ended.status, ended.exit_code, ended.code) == ("SUCCEEDED", 0, 0), ended.output
    for message in messages:
        assert str(message) in ended.output


def test_ray_job_trains(cluster, trained):
    assert_done(trained, "segment epoch 2/2", f"finished: {cluster.run('first').folder}")
    assert cluster.run("first").finished


def test_ray_job_finds_finished_run_of_same_name(cluster, trained, phantom):
    again = cluster.submit("train", "ganet_seg_debug", "--data", phantom, "--run-name", "first", *PLAIN)
    assert_done(again, "note: first was finished before and nothing was trained")


def test_ray_job_prepares_with_uploaded_code_on_workers(cluster, phantom, tmp_path):
    """A copy of the repository whose package leaves a note wherever it is imported."""
    copy, notes = tmp_path / "copy", tmp_path / "notes"
    notes.mkdir()
    copy.mkdir()
    for name in ("ganseg_dist", "clients", "server", "tune_spaces"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "ganseg_dist" / "__init__.py").open("a") as package:
        package.write(
            "import os, pathlib, sys\n"
            f"pathlib.Path({str(notes)!r}, str(os.getpid())).write_text(f'{{sys.argv[0]}}\\n{{__file__}}')\n"
        )
    done = cluster.submit("prepare", phantom, "--recipe", "ganet_seg_debug", folder=copy)
    assert_done(done, f"cases are prepared in {cluster.storage / 'runs' / '.store'}")
    imported = [note.read_text().split("\n") for note in notes.iterdir()]
    assert {program.rpartition("/")[2] for program, _ in imported} >= {"-m", "default_worker.py"}
    assert all("working_dir_files" in file for _, file in imported)


def test_ray_job_tunes(cluster, phantom):
    done = cluster.submit(
        "tune", "ganet_seg_debug", "--data", phantom, "--run-name", "sweep", "--trials", 2, "--space",
        "ganet_seg_feedback",
    )  # fmt: skip
    assert_done(done, "sweep.001", "sweep.002", "best: sweep.00")
    assert (cluster.run("sweep").folder / "report.html").is_file()


def test_ray_job_runs_experiment(cluster, phantom):
    done = cluster.submit(
        "experiment", "fractions", "ganet_seg_debug", "--data", phantom, "--run-name", "half", "--fractions", 50,
        "--arms", "real",
    )  # fmt: skip
    assert_done(done, f"written: {cluster.run('half').folder / 'table.csv'}")


def test_ray_job_federates(cluster, phantom):
    done = cluster.submit(
        "federate", "ganet_seg_debug", "--data", phantom, "--run-name", "together", "--sites", 2, "--rounds", 1, *PLAIN
    )
    assert_done(done, "next: ganseg report together.federated")
    assert len(cluster.run("together.federated").federation().rounds) == 1


def assert_error(ended: FinishedJob, message: str) -> None:
    """FAILED with exit code 2 of a user error, in one line."""
    assert (ended.status, ended.exit_code, ended.code) == ("FAILED", 2, 1), ended.output
    assert [line for line in ended.log.splitlines() if line.startswith("error: ")] == [message]
    assert message in ended.output
    assert "Traceback" not in ended.output


def test_ray_job_fails_in_one_line_with_code_2_for_user_error(cluster, phantom):
    wrong = cluster.submit("train", "ganet_seg_debug", "--data", phantom, "--set", "train.epoch=3")
    assert_error(wrong, "error: train.epoch: no such field; did you mean train.epochs?")


def test_ray_job_rejects_runs_folder_in_uploaded_code(cluster, phantom):
    bare = cluster.storage / "bare.yaml"
    bare.write_text("env_vars: {}\n")
    lost = cluster.submit("train", "ganet_seg_debug", "--data", phantom, runtime_env=bare)
    assert_error(
        lost,
        "error: GANSEG_RUNS: this job's runs would lie in the uploaded code, which Ray deletes; name storage that all "
        "nodes share, as in deploy/ray/runtime_env.yaml",
    )


def test_ray_job_resumes_run_of_stopped_job(cluster, phantom):
    args = ("train", "ganet_seg_debug", "--data", phantom, "--run-name", "stopped", "--set", "train.epochs=4")
    run = cluster.run("stopped")
    started = cluster.submit(*args, wait=False)
    job = cluster.jobs[-1]
    assert started.code == 0, started.output
    deadline = time.monotonic() + 600
    while FolderCheckpoints(run.checkpoints).newest() is None:
        assert time.monotonic() < deadline, cluster.client.get_job_logs(job)
        time.sleep(0.1)
    assert cluster.ray("stop", "--address", cluster.address, job).returncode == 0
    assert str(cluster.client.get_job_status(job)).endswith("STOPPED")
    assert not run.finished, "it was stopped too late for this test"
    again = cluster.submit(*args)
    assert_done(again, f"finished: {run.folder}")
    assert run.finished
    assert "healthy epoch 1/" not in again.log, "what was trained before is not trained again"
    assert "segment epoch 4/4" in again.log
