"""The manifests of deploy/ as Kubernetes gets them, and the commands in them as their programs parse them."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import typer
import yaml

from ganseg_dist.cli.main import app

ROOT = Path(__file__).parents[2]
RAY = ROOT / "deploy" / "ray"
MLFLOW = ROOT / "deploy" / "mlflow"
KUBERNETES = "1.30"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())

STANDARD = {
    "ray": [RAY / name for name in ("namespace.yaml", "storage.yaml", "network.yaml")],
    "mlflow": sorted((MLFLOW / "kubernetes").glob("*.yaml")),
}
"""Files of Kubernetes' own kinds, by folder."""
CUSTOM = ("raycluster.yaml", "rayjob.yaml")
"""Files of KubeRay's kinds."""


@cache
def documents(file: Path) -> tuple[dict[str, Any], ...]:
    """The documents of a file, anchors written out; shared, so not to be changed."""
    return tuple(json.loads(json.dumps(list(yaml.load_all(file.read_text(), yaml.CSafeLoader)))))


def only(file: Path) -> dict[str, Any]:
    (document,) = documents(file)
    return document


def standard(folder: str) -> list[dict[str, Any]]:
    """All documents of Kubernetes' own kinds of "ray" or "mlflow"."""
    return [document for file in STANDARD[folder] for document in documents(file)]


def of_kind(folder: str, kind: str) -> dict[str, Any]:
    """The one document of this kind."""
    (document,) = [document for document in standard(folder) if document["kind"] == kind]
    return document


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with another value at a path such as spec/ports/0/port."""
    made = copy.deepcopy(document)
    place: Any = made
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    return made


def validate(document: dict[str, Any]) -> None:
    """Raises kubernetes_validate.ValidationError for a field that Kubernetes does not know or cannot read."""
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def ray_clusters() -> dict[str, dict[str, Any]]:
    """The cluster's spec in raycluster.yaml and rayjob.yaml, by file."""
    return {
        "raycluster.yaml": only(RAY / "raycluster.yaml")["spec"],
        "rayjob.yaml": only(RAY / "rayjob.yaml")["spec"]["rayClusterSpec"],
    }


def groups(cluster: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The head and the groups of workers of a Ray cluster, by name."""
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def ray_nodes() -> dict[str, dict[str, Any]]:
    """Pod templates of Ray's nodes, by file and group."""
    return {
        f"{file}:{name}": group["template"]
        for file, cluster in ray_clusters().items()
        for name, group in groups(cluster).items()
    }


def ray_pods() -> dict[str, dict[str, Any]]:
    """Pod templates of Ray's nodes and of what submits the job."""
    submitter = only(RAY / "rayjob.yaml")["spec"]["submitterPodTemplate"]
    return ray_nodes() | {"rayjob.yaml:submitter": submitter}


def mlflow_pods() -> dict[str, dict[str, Any]]:
    """Pod templates of MLflow's server and of its upgrade."""
    return {f"mlflow:{kind}": of_kind("mlflow", kind)["spec"]["template"] for kind in ("Deployment", "Job")}


def compose() -> dict[str, Any]:
    """deploy/mlflow/compose.yaml."""
    return only(MLFLOW / "compose.yaml")


def training_arguments(words: Iterable[str]) -> dict[str, Any]:
    """The parameters of `python -m ganseg_dist train ...`. Raises click.UsageError for unknown words."""
    python, option, module, *rest = words
    assert (python, option, module) == ("python", "-m", "ganseg_dist")
    command = typer.main.get_command(app)
    with command.make_context("ganseg", list(rest)) as context:
        name, subcommand, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name == "train"
        return subcommand.make_context(name, arguments, parent=context).params
