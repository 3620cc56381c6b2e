"""Small federations that differ in one thing, for the benchmarks that compare what it costs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.data.cohort import Split
from ganseg_dist.systems import recipe

RECIPE = "ganet_seg_small"
# Coarse slices and a small network: an arm takes a minute or two.
SETTINGS: Mapping[str, object] = {
    "system.gan": False,
    "system.widths": [16, 32, 64],
    "data.size": 64,
    "data.spacing_mm": 3.0,
    "data.test_fraction": 0.4,
    "data.validation_fraction": 0.2,
    "federation.fingerprint": False,
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One federation."""

    labels: Mapping[str, str]
    """What tells it from the others."""
    config: RunConfig
    split: Split

    @property
    def name(self) -> str:
        """Fit for a folder."""
        return "-".join(re.findall(r"[a-z0-9]+", " ".join(self.labels.values()).lower()))

    def asked(self) -> dict[str, Any]:
        """What experiment.json keeps of it."""
        return {
            "labels": dict(self.labels),
            "config": self.config.model_dump(mode="json"),
            "split": self.split.to_dict(),
        }


def options(doc: str | None, run_name: str) -> argparse.ArgumentParser:
    """The options of them all."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run-name", default=run_name)
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="FIELD=VALUE")
    return parser


def asked_config(asked: argparse.Namespace, **more: object) -> RunConfig:
    """The plain U-Net of a small recipe, with what a person changes."""
    return override(recipe(RECIPE), {**SETTINGS, **more, **parse_assignments(asked.assignments)})
