"""A server and hospitals' nodes over TLS, started by the scripts in `deploy/flower`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ganseg_dist.data.readers import read_cohort
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.site_settings import SiteSettings
from tests.deploy.processes import Processes, Running, free_port

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "flower"
STARTED, ANSWERED = 180, 900
"""Seconds, generous for a busy machine."""
SHORT = {"system.gan": False, "data.test_fraction": 0, "data.validation_fraction": 0.4}
"""Channels and regions are left open: the hospitals agree on them."""


@dataclass
class Hub:
    """A coordinator's machine and its hospitals', in one folder."""

    folder: Path
    started: Processes
    port: int = field(default_factory=free_port)
    nodes: dict[str, Running] = field(default_factory=dict)

    def site_folder(self, hospital: str) -> Path:
        return self.folder / hospital

    def make_certificates(self, *names: str) -> None:
        """The server's, and keys of so many nodes."""
        nodes = [word for name in names for word in ("--node", name)]
        self.started.run("ganseg", "certificates", "keys", "--host", "localhost", *nodes, seconds=STARTED)

    def start_server(self) -> Running:
        server = self.started.start("server", SCRIPTS / "server.sh", "state", "keys", self.port)
        server.wait_for("Uvicorn running on https://", seconds=STARTED)
        return server

    def register(self, name: str) -> str:
        """What the script prints."""
        return self.started.run(SCRIPTS / "register.sh", "state", f"keys/{name}.pub", seconds=STARTED)

    def start_node(self, name: str) -> Running:
        """Which is not connected yet."""
        words = (name, f"keys/{name}.key", "keys/ca.crt", f"localhost:{self.port}", free_port())
        self.nodes[name] = self.started.start(name, SCRIPTS / "node.sh", *words)
        return self.nodes[name]

    def train(self, run: str, fields: Mapping[str, object], *, least: int = 2, log: str | None = None) -> Running:
        words = ("recipe=ganet_seg_debug", f"run-name={run}", f"set={settings(fields)}", f"least-sites={least}")
        return self.started.start(log or f"run-{run}", SCRIPTS / "run.sh", "state", *words)

    def record(self, run: str, name: str = "federation.json") -> dict:
        """A file of a run at the server."""
        return json.loads((self.folder / "state" / "runs" / run / name).read_text())


def environment() -> dict[str, str]:
    """Of every process: one thread, and fast polling of Flower's tasks."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "OMP_NUM_THREADS": "1", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}


def settings(fields: Mapping[str, object]) -> str:
    """Fields as `run.sh` takes them."""
    return " ".join(
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in fields.items()
    )


def make_sites(folder: Path, cohort: Path, sites: Mapping[str, str] | Sequence[str], **policy: object) -> None:
    """Hospitals' folders, each with an equal share of the patients and a policy for as few.

    `sites` maps a folder to what the hospital calls itself.
    """
    named = sites if isinstance(sites, Mapping) else {name: name for name in sites}
    patients = read_cohort(cohort).patients
    few = {"minimum_patients": 2, "minimum_group": 1, "validation_fraction": 0.4, "test_fraction": 0.0}
    for place, (name, called) in enumerate(named.items()):
        (folder / name).mkdir()
        chosen = SiteSettings(
            name=called, data=cohort, patients=patients[place :: len(named)],
            policy=SitePolicy.model_validate(few | policy),
        )  # fmt: skip
        (folder / name / "site.toml").write_text(chosen.to_toml())
