"""What a mask's values mean: label schemes, our own label values, and the regions that they form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.uint8]

BRATS_LABELS = {0: 0, 1: 1, 2: 2, 4: 3}
"""BraTS 2018-2021 labels to ours: 1 necrotic core, 2 oedema, 3 enhancing tumour."""
BRATS_2023_LABELS = {0: 0, 1: 1, 2: 2, 3: 3}
BINARY_LABELS = {0: 0, 1: 1}

BRATS_REGIONS = ("wt", "tc", "et")
BINARY_REGIONS = ("wt",)

SCHEMES: Mapping[str, tuple[Mapping[int, int], tuple[str, ...]]] = {
    "binary": (BINARY_LABELS, BINARY_REGIONS),
    "brats": (BRATS_LABELS, BRATS_REGIONS),
    "brats2023": (BRATS_2023_LABELS, BRATS_REGIONS),
}
"""By the name that a manifest states: stored values to ours, and the regions that these can tell apart."""

REGION_LABELS: Mapping[str, tuple[int, ...]] = {"wt": (1, 2, 3), "tc": (1, 3), "et": (3,)}
"""Our labels in each region: 1 necrotic core, 2 oedema, 3 enhancing tumour."""

INNERMOST_LABELS = {"wt": 2, "tc": 1, "et": 3}
"""Our label of a voxel whose innermost region this is: oedema, necrotic core, enhancing tumour."""
