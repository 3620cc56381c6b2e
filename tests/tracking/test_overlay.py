import numpy as np

from ganseg_dist.display import Convention
from ganseg_dist.tracking.overlay import COLOURS, ENLARGED, TITLE_HEIGHT, draw_examples

SIDE = 16
WHITE = 255
"""A constant picture is shown at full brightness."""


UNKNOWN = np.zeros(2, bool), Convention.RADIOLOGICAL
"""Neither example has known sides: nothing is mirrored or marked."""


def examples() -> dict[str, np.ndarray]:
    image = np.full((2, 3, SIDE, SIDE), -1, np.float32)
    image[:, -1] = 0.0
    regions = np.zeros((2, 2, SIDE, SIDE), np.float32)
    regions[:, 0, 4:12, 4:12] = 1
    regions[:, 1, 6:10, 6:10] = 1
    probability = np.zeros_like(regions)
    probability[:, 0, 2:8, 2:8] = 0.9
    return {
        "image": image,
        "regions": regions,
        "probability": probability,
        "anomaly": np.ones((2, 1, SIDE, SIDE), np.float32),
        "reconstruction": np.ones((2, 1, SIDE, SIDE), np.float32),
    }


def cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """The enlarged tile as (H, W, 3), at image resolution's upper left pixels."""
    side = SIDE * ENLARGED
    return sheet[TITLE_HEIGHT:][row * side : (row + 1) * side, column * side : (column + 1) * side]


def test_draw_examples_has_columns_image_truth_prediction_anomaly_reconstruction():
    sheet = np.asarray(draw_examples(examples(), *UNKNOWN))
    side = SIDE * ENLARGED
    assert sheet.shape == (TITLE_HEIGHT + 2 * side, 5 * side, 3)
    for row in range(2):
        assert (cell(sheet, row, 0) == WHITE).all()
        truth = cell(sheet, row, 1)
        assert tuple(truth[8, 8]) == COLOURS[0]  # the corner of region 0 at 2x
        assert tuple(truth[12, 12]) == COLOURS[1]
        assert tuple(truth[15, 15]) == (WHITE,) * 3  # inside both, no line
        assert tuple(truth[7, 8]) == (WHITE,) * 3
        assert tuple(cell(sheet, row, 2)[4, 4]) == COLOURS[0]
        assert cell(sheet, row, 3).min() > 150  # the brightest of the heat colours
        assert (cell(sheet, row, 4) == 255).all()


def test_draw_examples_has_fewer_columns_without_gan():
    pictures = {name: value for name, value in examples().items() if name in ("image", "regions", "probability")}
    assert draw_examples(pictures, *UNKNOWN).size[0] == 3 * SIDE * ENLARGED


def test_draw_examples_shows_nan_as_black():
    pictures = examples()
    pictures["anomaly"][:] = np.nan
    assert (cell(np.asarray(draw_examples(pictures, *UNKNOWN)), 0, 3) < 5).all()
