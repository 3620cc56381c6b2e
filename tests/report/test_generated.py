"""The newest sheet of example pictures of a run."""

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.errors import RunError
from ganseg_dist.report.generated import newest_sheet
from ganseg_dist.runs import Run


def write_sheet(folder, step):
    examples = folder / "artifacts" / "examples" / "segment"
    examples.mkdir(parents=True)
    Image.fromarray(np.full((2, 3, 3), step, np.uint8)).save(examples / f"step-{step:07d}.png")


def test_newest_sheet_reads_artifacts_beside_runs(tmp_path):
    write_sheet(tmp_path / "runs" / "mlartifacts" / "abc", 7)
    sheet = newest_sheet(Run(tmp_path / "runs" / "first"), "abc")
    assert (sheet.stage, sheet.step, sheet.pixels.shape) == ("segment", 7, (2, 3, 3))
    assert newest_sheet(Run(tmp_path / "runs" / "first"), "other") is None


@pytest.mark.parametrize("run_id", ["../../elsewhere", "/elsewhere"])
def test_newest_sheet_rejects_path_as_run_id(tmp_path, run_id):
    write_sheet(tmp_path / "elsewhere", 7)
    with pytest.raises(RunError, match=r"first/run\.json: path .* restore it"):
        newest_sheet(Run(tmp_path / "runs" / "first"), run_id)
