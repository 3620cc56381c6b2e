"""Small federations that differ in one setting, for the benchmarks that compare its cost."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from ganseg_dist.config import RunConfig, override, parse_assignments
from ganseg_dist.data.cohort import Split
from ganseg_dist.studies.trial import Trial
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


def federation_trial(values: Mapping[str, str | int | float], config: RunConfig, split: Split) -> Trial:
    """One federation, named by the settings in which it differs from the others."""
    name = "-".join(re.findall(r"[a-z0-9]+", " ".join(map(str, values.values())).lower()))
    return Trial(name, values, config, split)


def options(doc: str | None, run_name: str) -> argparse.ArgumentParser:
    """The options that these benchmarks share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run-name", default=run_name)
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="FIELD=VALUE")
    return parser


def config_from(args: argparse.Namespace, **changes: object) -> RunConfig:
    """The plain U-Net of a small recipe with SETTINGS, these changes, and the user's assignments."""
    return override(recipe(RECIPE), {**SETTINGS, **changes, **parse_assignments(args.assignments)})
