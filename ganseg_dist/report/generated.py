"""Generated images beside real ones, from the newest sheet of examples that training sent to MLflow.

Trackers send a sheet every few epochs. Without a server, MLflow keeps its files beside the runs:
mlartifacts/RUN_ID/artifacts/examples/STAGE/step-N.png. On a sheet an example is a row of squares of one size, all under
a line of titles: first the image, then the same with its mask, and last the image from the generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ganseg_dist.config import RunConfig
from ganseg_dist.display import AS_STORED, PNG_TEXT
from ganseg_dist.errors import RunError
from ganseg_dist.files import confined
from ganseg_dist.plots.images import Pixels
from ganseg_dist.report.pictures import Tile, picture_tile
from ganseg_dist.runs import Run

ARTIFACTS = "mlartifacts"

ENLARGED = 2
"""Screen pixels of a sheet per image pixel."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """Examples of one validation, drawn during training."""

    stage: str
    step: int
    pixels: Pixels
    """(H, W, 3)."""
    caption: str
    """Which side of the patient is on the left; empty where it is not known."""


def shows_generated(config: RunConfig | None) -> bool:
    """Whether the system trains on images that it generates; GANet-Seg's filled lesions are in another section."""
    return config is not None and config.system.synthesises and not config.system.knows_healthy_tissue


def newest_sheet(run: Run, run_id: str | None) -> Sheet | None:
    """None where MLflow's files do not lie beside the runs, or hold no sheet yet.

    Raises RunError when the picture cannot be read, and for a run id that is a path out of MLflow's folder.
    """
    if run_id is None:
        return None
    of_run = confined(run.folder.parent / ARTIFACTS, run_id, run.folder / "run.json", "restore it", error=RunError)
    examples = of_run / "artifacts" / "examples"
    steps = {int(path.stem.removeprefix("step-")): path for path in examples.glob("*/step-*[0-9].png")}
    if not steps:
        return None
    newest = max(steps)
    return Sheet(steps[newest].parent.name, newest, *_read(steps[newest]))


def _read(path: Path) -> tuple[Pixels, str]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB")), str(picture.info.get(PNG_TEXT, ""))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read ({error}); remove it") from None


def sheet_tiles(sheet: Sheet, config: RunConfig) -> list[list[Tile]]:
    """One example a row; none where the sheet is not one of this config's slices."""
    cell = config.data.size * ENLARGED
    height, width = sheet.pixels.shape[:2]
    columns, title = width // cell, height % cell
    if width % cell or columns < 2 or height < cell:
        return []
    generated_caption = config.system.example_label
    column_of = {"real image": 0, **({"its mask": 1} if config.data.regions else {}), generated_caption: columns - 1}
    return [
        [
            picture_tile(
                name,
                f"{name}, example {number + 1} of stage {sheet.stage}"
                + (f"; {sheet.caption}" if sheet.caption else ""),
                sheet.pixels[top : top + cell, column * cell : (column + 1) * cell],
                AS_STORED,  # a sheet is already laid out and marked
            )
            for name, column in column_of.items()
        ]
        for number, top in enumerate(range(title, height, cell))
    ]
