from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.data.labels import BINARY
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.inference.model_folder import Model, Thresholds
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.synthesis.encoder import own_encoder
from ganseg_dist.synthesis.generate import Generated, GeneratedSlices, check_generator, generate, generate_from_masks
from ganseg_dist.synthesis.memorisation import audit
from ganseg_dist.synthesis.references import (
    HELD_OUT,
    RealImages,
    class_quality,
    generated_quality,
    held_out_images,
    training_images,
)
from ganseg_dist.synthesis.results import Floor, Quality
from ganseg_dist.systems import build_system, recipe

CLASSES = ("bar", "disc")


def predictor(name="gan_detector_debug", **changes):
    fixed = {"data.modalities": ["grey"], "data.classes": list(CLASSES), "data.regions": ["wt"]}
    config = override(recipe(name), fixed | {key.replace("__", "."): value for key, value in changes.items()})
    torch.manual_seed(0)
    return Predictor(Model(config, build_system(config), Thresholds(), (), BINARY))


def slice_set(labels, lesions=()):
    """One case per slice, two cases per patient; the grey level of a slice is its index scaled to -1 to 1."""
    image = np.linspace(-1, 1, len(labels), dtype=np.float32)
    cases = [
        SimpleNamespace(
            patient=f"p{place // 2}",
            modalities=("grey",),
            regions=(),
            size=32,
            sides_known=True,
            image=np.broadcast_to(grey, (1, 1, 32, 32)),
        )
        for place, grey in enumerate(image)
    ]
    count = len(labels)
    has_lesion = np.isin(np.arange(count), lesions)
    return SliceSet(tuple(cases), ("grey",), (), np.arange(count), np.zeros(count, int), has_lesion, np.array(labels))


def test_generate_starts_with_same_images_for_larger_count():
    few, many = (generate(predictor(), count=count) for count in (3, 10))
    assert few.classes == ("bar",) * 3 + ("disc",) * 3
    assert few.image.shape == (6, 1, 32, 32)
    assert np.abs(few.image).max() <= 1
    assert few.image == pytest.approx(many.image[[0, 1, 2, 10, 11, 12]], abs=1e-5)
    assert np.abs(few.image - generate(predictor(), count=3, seed=1).image).max() > 1e-3


def test_generate_rejects_nan_image(monkeypatch):
    model = predictor()
    nan_image = torch.full((2, 1, 32, 32), torch.nan)
    monkeypatch.setattr(model.system, "generate", lambda z, label: nan_image)
    with pytest.raises(DataError, match=r"^generated images: the model's image is NaN or infinite in 2048 of 2048 "):
        generate(model, count=1)


def test_generate_makes_requested_classes_in_class_order():
    requested = generate(predictor(), classes=["disc", "bar", "disc"], count=2)
    assert requested.classes == ("disc", "disc", "bar", "bar")
    assert requested.image[2:] == pytest.approx(generate(predictor(), count=2).image[:2], abs=1e-5)
    with pytest.raises(ConfigError, match="--class ring: this generator was trained on bar, disc;"):
        generate(predictor(), classes=["ring"])


@pytest.mark.parametrize("generator", ["dcgan", "wgan_gp"])
def test_generate_of_unconditional_generator_makes_second_class(generator):
    lesions = predictor(system__generator=generator)
    assert set(generate(lesions, count=2).classes) == {"disc"}
    with pytest.raises(ConfigError, match="--class bar: this generator was trained on disc;"):
        generate(lesions, classes=["bar"])


@pytest.mark.parametrize(
    ("name", "changes", "problem"),
    [
        ("ganet_seg_debug", {}, "GANet-Seg: its generator fills holes.*--reconstruction"),
        ("dl_gan_cnn_debug", {}, "DL-GAN-CNN: its generator makes feature maps"),
        ("gan_osmosis_debug", {"system.gan": False}, "system.gan is false; train with system.gan=true"),
        ("gan_detector_debug", {"system.gan": False}, "system.gan is false; train with system.gan=true"),
        ("gan_detector_debug", {"system.augmentation": "classical"}, "system.augmentation is classical; train with"),
        ("gan_detector_debug", {"system.augmentation": "none"}, "system.augmentation is none; train with"),
    ],
)
def test_check_generator_names_field_that_disables_generation(name, changes, problem):
    with pytest.raises(RunError, match=problem):
        check_generator(override(recipe(name), changes))


def slices_with_mask(mask):
    """A slice all foreground, and this mask of it."""
    case = SimpleNamespace(
        patient="p",
        modalities=("grey",),
        regions=("wt",),
        size=32,
        sides_known=True,
        image=np.full((1, 1, 32, 32), 0.5, np.float32),
        masks=mask[None, None].astype(np.uint8),
    )
    one = np.zeros(1, int)
    return SliceSet((case,), ("grey",), ("wt",), one, one, np.array([True]), one)


def test_generate_from_masks_keeps_lesion_in_frame():
    corner = np.zeros((32, 32))
    corner[0, 0] = 1
    osmosis = predictor("gan_osmosis_debug", data__augment__scale=0.4, data__augment__rotation_degrees=45.0)
    generated_images = generate_from_masks(osmosis, slices_with_mask(corner), copies=40)
    assert generated_images.regions.any(axis=(1, 2, 3)).all()
    places = {tuple(np.argwhere(mask[0])[0]) for mask in generated_images.regions}
    assert len(places) > 3, "turned and scaled all the same"
    again = generate_from_masks(osmosis, slices_with_mask(corner), copies=3)
    assert np.array_equal(again.regions, generated_images.regions[:3])
    untouched = generate_from_masks(osmosis, slices_with_mask(corner), deformed=False)
    assert np.array_equal(untouched.regions[0, 0], corner)


def test_generate_from_masks_moves_mask_with_foreground():
    disc = np.hypot(*np.mgrid[-16:16, -16:16]) < 6
    moved = slices_with_mask(disc)
    moved.cases[0].image[0, 0] = np.where(disc, 0.5, -1)
    generated_images = generate_from_masks(predictor("gan_osmosis_debug"), moved, copies=5)
    for mask, real in zip(generated_images.regions[:, 0], generated_images.real[:, 0], strict=True):
        assert not (mask.astype(bool) & (real == -1)).any()
        assert (generated_images.image[:, 0][generated_images.real[:, 0] == -1] == -1).all()


def test_generate_functions_reject_other_kind_of_generator():
    with pytest.raises(RunError, match="takes no masks"):
        generate_from_masks(predictor(), slice_set([0, 1]))
    with pytest.raises(RunError, match="knows no classes"):
        generate(predictor("gan_osmosis_debug"))


def test_training_images_are_those_of_the_generator():
    some = slice_set([0, 1, -1, 1, 0, 1])
    every = training_images(predictor(), some)
    assert every.classes == ("bar", "disc", "disc", "bar", "disc")
    assert every.patients == ("p0", "p0", "p1", "p2", "p2")
    assert every.image[:, 0, 0, 0] == pytest.approx([-1, -0.6, 0.2, 0.6, 1])
    lesions = training_images(predictor(system__generator="dcgan"), some)
    assert lesions.classes == ("disc",) * 3
    assert lesions.image[:, 0, 0, 0] == pytest.approx([-0.6, 0.2, 1])
    assert training_images(predictor(), some, most=2).patients == ("p0", "p2")


def test_training_images_include_flips_where_training_flips():
    for name, flips in (("gan_detector_debug", False), ("gan_osmosis_debug", True)):
        model = predictor(name)
        assert any(stage.augmented for stage in model.system.stages if "generator" in stage.networks) == flips
        found = training_images(model, slice_set([0, 1, 1]))
        assert (found.flipped, len(found.image), len(found.patients)) == (flips, 6 if flips else 3, 6 if flips else 3)
        assert found.sides_known != flips, "in a flipped copy left and right are exchanged"
    assert not training_images(predictor("gan_osmosis_debug", data__augment__flip=0.0), slice_set([0, 1])).flipped


@pytest.mark.parametrize(("flip", "deformed", "known"), [(0.5, True, False), (0.5, False, True), (0.0, True, True)])
def test_generate_from_masks_marks_sides_known_unless_mirrored(flip, deformed, known):
    disc = np.hypot(*np.mgrid[-16:16, -16:16]) < 6
    model = predictor("gan_osmosis_debug", data__augment__flip=flip)
    assert generate_from_masks(model, slices_with_mask(disc), deformed=deformed).sides_known == known


def test_held_out_images_match_kind_of_generated_images():
    some = slice_set([0, 1, -1, 1, 0, 1], lesions=[2, 5])
    known = held_out_images(predictor(), some)
    assert (known.classes, known.flipped) == (("bar", "disc", "disc", "bar", "disc"), False)
    assert held_out_images(predictor(system__generator="dcgan"), some).classes == ("disc",) * 3
    with_lesion = held_out_images(predictor("gan_osmosis_debug"), some)
    assert with_lesion.image[:, 0, 0, 0] == pytest.approx([-0.2, 1])
    assert (with_lesion.patients, with_lesion.flipped) == (("p1", "p2"), False)
    assert held_out_images(predictor(), slice_set([-1, -1])).image.shape == (0, 1, 32, 32)


def pictures(seed, count):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 1, 16, 16)).astype(np.float32)


def test_class_quality_measures_classes_with_enough_images():
    training = RealImages(pictures(0, 11), ("p",) * 11, ("bar",) * 8 + ("disc",) * 3)
    generated = Generated(pictures(1, 12), ("bar",) * 6 + ("disc",) * 6)
    found = class_quality(generated, training, "none here", own_encoder(predictor().system))
    bar, disc = found["bar"], found["disc"]
    assert (bar.n_synthetic, bar.n_real) == (6, 8)
    distances = bar.distances
    assert {each["kid_encoder"].n_real for each in distances.values()} == {8}
    assert {each["fid_encoder"].n_synthetic for each in distances.values()} == {6}
    assert distances["generated"]["fid_encoder"].value < distances["control: noise"]["fid_encoder"].value
    assert bar.diversity.ratio == pytest.approx(1, abs=0.1)
    assert bar.held_out == Floor(0, 0, "none here")
    assert HELD_OUT not in distances
    assert disc == Quality(n_synthetic=6, n_real=3, distances=None, held_out=None, diversity=None)


def test_class_quality_floor_uses_held_out_images_of_class():
    training = RealImages(pictures(0, 16), ("p",) * 16, ("bar",) * 8 + ("disc",) * 8)
    generated = Generated(pictures(1, 12) + 0.5, ("bar",) * 6 + ("disc",) * 6)
    held_out = RealImages(pictures(2, 13), tuple("qrstuvwxyzabc"), ("bar",) * 10 + ("disc",) * 3)
    found = class_quality(generated, training, held_out, own_encoder(predictor().system))
    bar, disc = found["bar"], found["disc"]
    assert list(bar.distances) == ["generated", HELD_OUT, "control: noise", "control: mean image"]
    assert bar.held_out == Floor(6, 6, None)
    floor, generated_distance = (bar.distances[name]["fid_encoder"] for name in (HELD_OUT, "generated"))
    assert (floor.n_synthetic, floor.n_real) == (6, 8)
    assert floor.value < generated_distance.value, (
        "held-out images are of the training images' distribution, those are not"
    )
    assert HELD_OUT not in disc.distances
    assert disc.held_out == Floor(3, 3, "too few for a distance, which needs 4")


def test_generated_quality_of_masks_has_floor():
    masks = np.zeros((5, 1, 16, 16), np.uint8)
    generated_images = GeneratedSlices(pictures(1, 5), masks, pictures(3, 5), ("p",) * 5)
    training = RealImages(pictures(0, 8), ("p",) * 8, (None,) * 8)
    audited = audit(generated_images.image, training.image)
    held_out = RealImages(pictures(2, 4), ("q", "q", "r", "r"), (None,) * 4)
    found = generated_quality(generated_images, training, held_out, audited, own_encoder(predictor().system))
    assert list(found.distances) == ["generated images", HELD_OUT, "control: noise", "control: mean image"]
    assert found.held_out == Floor(4, 2, None)
