import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageColor

from ganseg_dist.data.grid import Grid
from ganseg_dist.data.labels import BRATS, LabelScheme
from ganseg_dist.data.scan import Scan
from ganseg_dist.errors import GansegError
from ganseg_dist.plots.images import MARGIN_INCHES, PANEL_INCHES, REGION_COLOURS
from ganseg_dist.report.overlay import write_overlay

REGIONS = ("wt", "tc")
TWO = BRATS.of_regions(REGIONS)


def overlay_file(file, masks, affine=None, scheme=TWO, case="p1"):
    """The overlay of a scan of three slices of 16 x 20, brighter from slice to slice."""
    image = np.zeros((1, 16, 20, 3), np.float32)
    image[:, 4:12, 4:16] = np.array([100, 200, 300])
    grid = Grid((16, 20, 3), affine)
    scan, prediction = Scan(("flair",), image, None, grid), SimpleNamespace(regions=masks.astype(bool))
    return write_overlay(file, case, scan, prediction, REGIONS, scheme)


def pixels_of(file, region, *, half=1):
    """Number of pixels in the colour of a region on the left (0) or right (1) panel."""
    picture = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"), int)
    margin = int(MARGIN_INCHES * 120)
    panel = picture[margin:-margin, half * picture.shape[1] // 2 :][:, : picture.shape[1] // 2]
    return int((np.abs(panel - ImageColor.getrgb(REGION_COLOURS[region])).max(axis=-1) < 40).sum())


def masks(*boxes):
    stack = np.zeros((2, 16, 20, 3))
    for region, rows, columns, index in boxes:
        stack[region, slice(*rows), slice(*columns), index] = 1
    return stack


def test_write_overlay_shows_slice_with_largest_lesion(tmp_path):
    small = masks((0, (5, 7), (5, 7), 0))
    large = small + masks((0, (4, 11), (4, 15), 2), (1, (6, 8), (6, 8), 2))
    file = overlay_file(tmp_path / "sub" / "a.png", large)
    assert pixels_of(file, "wt") > pixels_of(file, "tc") > 0
    assert pixels_of(file, "wt") > 2 * pixels_of(overlay_file(tmp_path / "b.png", small), "wt") > 0
    assert pixels_of(file, "wt", half=0) == pixels_of(file, "tc", half=0) == 0


def test_write_overlay_has_no_outline_for_empty_prediction(tmp_path):
    file = overlay_file(tmp_path / "a.png", masks())
    assert pixels_of(file, "wt") == pixels_of(file, "tc") == 0


def test_write_overlay_accepts_dollar_signs_in_case_name(tmp_path):
    assert overlay_file(tmp_path / "a.png", masks(), case="$\\frac$").is_file()


def test_write_overlay_keeps_aspect_ratio_in_millimetres(tmp_path):
    """Voxels 2 mm along R and 1 mm along A: 16 x 2 mm wide, 20 x 1 mm high."""
    picture = Image.open(overlay_file(tmp_path / "a.png", masks(), np.diag([2.0, 1.0, 3.0, 1.0])))
    height = picture.height / 120 - 2 * MARGIN_INCHES
    assert height / PANEL_INCHES == pytest.approx(20 / 32, abs=0.01)


def test_write_overlay_keeps_earlier_file_when_disk_is_full(tmp_path, monkeypatch):
    file = overlay_file(tmp_path / "a.png", masks())
    earlier = file.read_bytes()

    def half(canvas, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(FigureCanvasAgg, "print_png", half)
    with pytest.raises(GansegError, match=r"a\.png: cannot be written \(No space left on device\)"):
        overlay_file(file, masks((0, (4, 11), (4, 15), 1)))
    assert file.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [file]


def test_write_overlay_legend_uses_label_names_of_model(tmp_path, monkeypatch):
    """A name may hold what matplotlib would take for a formula."""
    seen = []
    print_png = FigureCanvasAgg.print_png

    def looked_at(canvas, path, **_):
        seen.extend(text.get_text() for text in canvas.figure.legends[0].get_texts())
        print_png(canvas, path)

    monkeypatch.setattr(FigureCanvasAgg, "print_png", looked_at)
    tissues = {"background": 0, "oedema": 1, "$NCR_{$ and ET": 2}
    scheme = LabelScheme(tissues, {"wt": ("oedema", "$NCR_{$ and ET"), "tc": ("$NCR_{$ and ET",)})
    overlay_file(tmp_path / "a.png", masks(), scheme=scheme)
    assert seen == ["Whole tumour, predicted", "$NCR_{$ and ET, predicted"]
