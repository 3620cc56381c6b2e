"""Which detectors may judge generated images, and the accuracy that they give."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.synthesis.judge import SAME, Judge, check_judge, judged
from ganseg_dist.synthesis.results import Share
from ganseg_dist.systems import recipe
from ganseg_dist.systems.base import Prediction

GENERATOR = override(recipe("gan_detector_debug"), {"data.modalities": ["grey"], "data.classes": ["bar", "disc"]})
REAL_ALONE = override(GENERATOR, {"system.augmentation": "classical"})


@pytest.mark.parametrize("changes", [{}, {"system.augmentation": "none"}, {"system.gan": False, "seed": 3}])
def test_check_judge_accepts_detector_of_real_images(changes):
    check_judge("plain", override(REAL_ALONE, changes), GENERATOR)


@pytest.mark.parametrize(
    "judge",
    [
        GENERATOR,
        override(GENERATOR, {"system.augmentation": "gan"}),
        override(REAL_ALONE, {"system.pretrained": "weights.safetensors"}),
        recipe("dl_gan_cnn_debug"),
        recipe("gan_osmosis_debug"),
    ],
)
def test_check_judge_rejects_model_trained_with_generated_images(judge):
    with pytest.raises(ConfigError, match="--judge other: may have seen generated images"):
        check_judge("other", judge, GENERATOR)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", ["flair"]),
        ("classes", ["disc", "bar"]),
        ("size", 64),
        ("spacing_mm", 1.0),
        ("intensities", "colour"),
        ("enhance", "corrected"),
        ("equalise", "global"),
        ("clusters", 3),
        ("cluster_by", "coordinates"),
    ],
)
def test_check_judge_rejects_model_of_other_data_settings(field, value):
    assert field in SAME
    with pytest.raises(ConfigError, match=rf"--judge other: its data\.{field} is .*, not "):
        check_judge("other", override(REAL_ALONE, {f"data.{field}": value}), GENERATOR)


def test_judged_rejects_nan_probability():
    system = SimpleNamespace(predict=lambda batch: Prediction(classes=torch.full((len(batch.image), 2), torch.nan)))
    judge = Judge("plain", SimpleNamespace(config=GENERATOR, system=system, device=torch.device("cpu")))
    with pytest.raises(DataError, match=r"^image 1: the model's class probability is NaN"):
        judged(judge, np.zeros((3, 1, 4, 4), np.float32), ["bar"] * 3)


def test_judged_returns_accuracy_overall_and_per_class():
    def predict(batch):
        """Classify bright images as discs."""
        bright = (batch.image.mean(dim=(1, 2, 3)) > 0).float()
        return Prediction(classes=torch.stack([1 - bright, bright], dim=1))

    system = SimpleNamespace(predict=predict)
    judge = Judge("plain", SimpleNamespace(config=GENERATOR, system=system, device=torch.device("cpu")))
    images = np.concatenate([np.full((20, 1, 4, 4), -0.5), np.full((10, 1, 4, 4), 0.5)]).astype(np.float32)
    classes = ["bar"] * 17 + [None, "disc", "disc"] + ["disc"] * 6 + ["bar"] * 4
    assert asdict(judged(judge, images, classes)) == {
        "accuracy": pytest.approx((17 + 6) / 29),
        "n": 29,
        "classes": {
            "bar": {"accuracy": pytest.approx(17 / 21), "n": 21},
            "disc": {"accuracy": pytest.approx(6 / 8), "n": 8},
        },
    }
    alone = judged(judge, images[:3], ["bar"] * 3)
    assert (alone.accuracy, alone.classes["disc"]) == (1, Share(accuracy=None, n=0))
