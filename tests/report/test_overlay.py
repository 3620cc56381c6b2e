import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.errors import GansegError
from ganseg_dist.report.overlay import write_overlay


def prediction(probability, threshold=0.5):
    image = np.full((3, 1, 16, 16), -1, np.float32)
    image[:, :, 4:12, 4:12] = np.array([0.0, 0.4, 0.8])[:, None, None, None]
    return SimpleNamespace(
        prepared=SimpleNamespace(image=image),
        thresholds=np.array([threshold], np.float32),
        on_prepared=SimpleNamespace(probability=np.asarray(probability, np.float32)),
    )


def orange_pixels(file):
    pixels = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"), int)
    return int((pixels[..., 0] > pixels[..., 2] + 60).sum())


def test_the_slice_with_the_most_lesion_is_outlined_at_the_models_threshold(tmp_path):
    probability = np.zeros((3, 1, 16, 16))
    probability[0, 0, 5:7, 5:7] = 0.9
    probability[2, 0, 4:11, 4:11] = 0.6
    large = orange_pixels(write_overlay(tmp_path / "sub" / "a.png", prediction(probability)))
    small = orange_pixels(write_overlay(tmp_path / "b.png", prediction(probability, 0.8)))
    assert large > 2 * small > 0


def test_a_full_disk_leaves_the_earlier_picture(tmp_path, monkeypatch):
    file = write_overlay(tmp_path / "a.png", prediction(np.zeros((3, 1, 16, 16))))
    earlier = file.read_bytes()

    def half(path, content):
        with path.open("wb") as stream:
            stream.write(content[:20])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(GansegError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_overlay(file, prediction(np.ones((3, 1, 16, 16))))
    assert file.read_bytes() == earlier
    assert list(tmp_path.iterdir()) == [file]


def test_nothing_predicted_is_the_middle_slice_alone(tmp_path):
    assert orange_pixels(write_overlay(tmp_path / "a.png", prediction(np.zeros((3, 1, 16, 16))))) == 0
