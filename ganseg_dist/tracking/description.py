"""Parameters, tags and documents that MLflow receives before a run trains, from the run's folder."""

from __future__ import annotations

import json
import re
from typing import Any

from ganseg_dist.config import RunConfig
from ganseg_dist.data.record import DataRecord
from ganseg_dist.runs import Run

LONGEST_NAME = 250
LONGEST_VALUE = 6000
DOCUMENTS = ("config.json", "split.json", "data.json")
PLACES = ("root", "file")
"""Fields that hold paths of this machine, which no server needs to know."""


def metric_name(name: str) -> str:
    """The name as MLflow accepts it: one invalid name, or one that reads as a path with `..`, fails a whole call."""
    parts = re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME].split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)


def run_params(config: RunConfig) -> dict[str, str]:
    """The resolved config as dotted parameters, as a person writes them; None is left out."""
    return {
        name[:LONGEST_NAME]: _written(value)[:LONGEST_VALUE]
        for name, value in config.flat().items()
        if value is not None
    }


def _written(value: Any) -> str:
    """A field's value as text: a list as `t1, flair`."""
    if isinstance(value, list):
        return ", ".join(map(_written, value))
    return value if isinstance(value, str) else json.dumps(value)


def run_document(run: Run, name: str) -> Any:
    """One of DOCUMENTS without its paths, as MLflow receives it."""

    def without_places(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: without_places(value) for key, value in node.items() if key not in PLACES}
        return [without_places(value) for value in node] if isinstance(node, list) else node

    return without_places(run.read(name))


def run_tags(run: Run) -> dict[str, str]:
    """Data and code: a fingerprint of the cases' contents, whether they are synthetic, version and commit."""
    data, description = run.data(), run.description()
    tags = {
        "ganseg.run": run.name,
        "ganseg.recipe": run.config().recipe,
        **data_tags(data),
        "ganseg.version": description.version or "",
        "mlflow.source.name": f"ganseg train {run.config().recipe}",
    }
    commit = description.commit
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit.rstrip("+")
        tags["ganseg.dirty"] = json.dumps(commit.endswith("+"))
    return {name: value[:LONGEST_VALUE] for name, value in tags.items()}


def data_tags(data: DataRecord) -> dict[str, str]:
    """Tags that identify a cohort, from its data.json: its fingerprint, and whether it is a phantom or synthetic."""
    return {
        "ganseg.data": data.fingerprint,
        "ganseg.phantom": json.dumps(data.phantom),
        "ganseg.synthetic": json.dumps(data.synthetic),
    }
