import json
import sys

import numpy as np
import pytest
import torch

from ganseg_dist.config import override
from ganseg_dist.errors import DataError, MissingDependency, RunError
from ganseg_dist.models.classifier import Classifier
from ganseg_dist.models.unet import UNet
from ganseg_dist.synthesis.encoder import (
    OwnEncoder,
    distribution_distances,
    features,
    load_inception,
    own_encoder,
)
from ganseg_dist.synthesis.memorisation import Audit, Limits, audit
from ganseg_dist.systems import build_system, recipe
from tests.inference.untrained import predictor


def smooth_images(seed, count, channels=1, side=32):
    """Independent smooth random images, (count, channels, side, side)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] / side
    image = np.zeros((count, channels, side, side))
    for wave in range(1, 6):
        phase, turn = rng.uniform(0, 2 * np.pi, (2, count, channels, 1, 1))
        along = np.cos(turn) * rows + np.sin(turn) * columns
        image += np.sin(2 * np.pi * wave * along + phase) / 5
    return image.astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return OwnEncoder(UNet(1, 1, (4, 8, 16)).encoder.eval())


@pytest.fixture(scope="module")
def training():
    return smooth_images(0, 200)


def test_audit_accepts_independent_images(training, encoder):
    found = audit(smooth_images(1, 100), training, encoder=encoder)
    assert found.share <= 0.03
    assert not found.rejected
    percentiles = np.array([image.pixels.percentile for image in found.images])
    assert 35 < np.median(percentiles) < 65


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_audit_detects_near_copies(training, encoder, noise):
    rng = np.random.default_rng(2)
    copies = training[[7, 50, 199]]
    copies = (copies + noise * rng.normal(size=copies.shape)).astype(np.float32)
    synthetic = np.concatenate([smooth_images(1, 5), copies])
    found = audit(synthetic, training, encoder=encoder)
    assert found.memorised == (5, 6, 7)
    assert (found.share, found.rejected) == (3 / 8, True)
    for image, original in zip(found.images[5:], (7, 50, 199), strict=True):
        assert image.pixels.index == original
        assert image.pixels.memorised
        if noise < 0.05:  # this small encoder, never trained, mistakes the noisiest for other images
            assert (image.encoder.index, image.encoder.memorised) == (original, True)
        assert (image.pixels.distance == 0) == (noise == 0)
        assert image.pixels.percentile == pytest.approx(100 / 201)


def test_audit_detects_near_copy_among_few_training_images(training):
    few = training[:10]
    found = audit(np.concatenate([few[[4]], 0.99 * few[[4]], smooth_images(1, 1)]), few)
    # Of ten no percentile is as low as the first: the copies are caught by their distance.
    assert found.images[1].pixels.percentile == pytest.approx(100 / 11)
    assert found.memorised == (0, 1)


def test_audit_distances_and_percentiles_match_hand_computation():
    training = np.array([0.0, 1.0, 3.0, 7.0]).reshape(4, 1, 1, 1)  # own distances 1, 1, 2, 4
    synthetic = np.array([4.5, 0.0, 100.0]).reshape(3, 1, 1, 1)
    middle, copy, far = (image.pixels for image in audit(synthetic, training).images)
    assert (middle.index, middle.distance, middle.percentile) == (2, 1.5, pytest.approx(100 * 3 / 5))
    assert (copy.index, copy.distance, copy.percentile, copy.memorised) == (0, 0, pytest.approx(100 / 5), True)
    assert (far.index, far.distance, far.percentile, far.memorised) == (3, 93, 100, False)
    assert audit(synthetic, training).median_percentile == pytest.approx(60)


def test_audit_reference_distances_exclude_own_patient():
    training = np.array([0.0, 0.1, 5.0, 5.1]).reshape(4, 1, 1, 1)
    synthetic = np.array([0.8]).reshape(1, 1, 1, 1)
    # 0.7 from its nearest: far beside 0.1 between two slices of a head, near beside 4.9 between two heads.
    assert not audit(synthetic, training).images[0].memorised
    known = audit(synthetic, training, patients=["a", "a", "b", "b"]).images[0]
    assert known.memorised
    assert known.pixels.percentile == pytest.approx(100 / 5)


def test_audit_rejects_above_configured_share(training):
    synthetic = np.concatenate([training[:1], smooth_images(1, 4)])
    assert audit(synthetic, training).share == 0.2
    assert audit(synthetic, training).rejected
    assert not audit(synthetic, training, limits=Limits(share=0.2)).rejected


def test_audit_round_trips_through_json(training, encoder):
    for found in (audit(training[:3], training), audit(smooth_images(1, 3), training, encoder=encoder)):
        record = json.loads(json.dumps(found.model_dump(by_alias=True), allow_nan=False))
        assert Audit.model_validate(record) == found
        assert (record["n"], record["n_training"], record["refused"]) == (3, 200, found.rejected)


def test_audit_does_not_depend_on_chunks_or_sampled_references(training, monkeypatch):
    synthetic = np.concatenate([smooth_images(1, 20), training[[3, 150]] + 0.01])
    whole = audit(synthetic, training)
    monkeypatch.setattr("ganseg_dist.synthesis.memorisation.CHUNK_MB", 0.01)  # six rows
    assert audit(synthetic, training) == whole
    monkeypatch.setattr("ganseg_dist.synthesis.memorisation.MOST_REFERENCES", 100)
    sampled = audit(synthetic, training)
    assert {20, 21} <= set(whole.memorised) <= set(sampled.memorised)
    assert [image.pixels.distance for image in sampled.images] == [image.pixels.distance for image in whole.images]
    assert sampled.images[20].pixels.percentile == pytest.approx(100 / 101)


def test_audit_rejects_invalid_inputs(training):
    with pytest.raises(DataError, match="beside training images"):
        audit(training[:0], training)
    with pytest.raises(DataError, match="beside training images"):
        audit(training[..., :16], training)
    with pytest.raises(DataError, match="of one patient"):
        audit(training[:1], training, patients=["a"] * 200)
    with pytest.raises(DataError, match="of one patient"):
        audit(training[:1], training[:1])
    with pytest.raises(DataError, match="1 patients for 200"):
        audit(training[:1], training, patients=["a"])
    with pytest.raises(DataError, match="not finite"):
        audit(training[:1] * np.nan, training)


@pytest.mark.parametrize(
    ("network", "levels"), [(UNet(1, 1, (4, 8, 16)), "encoder"), (Classifier(1, 2, (4, 8, 16)), "blocks")]
)
def test_features_are_spatial_means_of_coarsest_level(network, levels, training):
    network.eval()
    encoder = OwnEncoder(getattr(network, levels))
    coarsest = []
    handle = encoder.levels[-1].register_forward_hook(lambda *arguments: coarsest.append(arguments[-1]))
    with torch.inference_mode():
        network(torch.from_numpy(training[:5]))
    handle.remove()
    assert coarsest[0].shape == (5, 16, 8, 8)
    found = features(encoder, training[:5])
    assert found.shape == (5, 16 + 2 * 4)
    assert found[:, :16] == pytest.approx(coarsest[0].mean(dim=(2, 3)).numpy(), abs=1e-6)
    assert features(encoder, training[:20])[16:] == pytest.approx(features(encoder, training[16:20]), abs=1e-6)


def test_features_include_contrast_before_normalisation(encoder, training):
    """The first convolution has no bias: half the contrast is half of its mean and spread."""
    shown, dimmed = (features(encoder, images) for images in (training[:50], 0.5 * training[:50]))
    assert dimmed[:, 16:] == pytest.approx(0.5 * shown[:, 16:], abs=1e-6)
    coarse = np.abs(shown - shown[0])[:, :16].max()
    assert np.abs(dimmed - shown)[:, :16].max() < 0.01 * coarse


def test_kid_encoder_is_large_for_noise_of_same_mean(encoder, training):
    """Features after instance normalisation alone would not separate them."""
    noise = np.random.default_rng(0).normal(training.mean(), training.std(), training.shape).clip(-1, 1)
    near = distribution_distances(encoder, smooth_images(1, 100), training)["kid_encoder"].mean
    assert distribution_distances(encoder, noise[:100].astype(np.float32), training)["kid_encoder"].mean > 10 * near


def test_distribution_distances_over_own_encoder_are_named_fid_encoder(encoder, training):
    near = distribution_distances(encoder, smooth_images(1, 100), training)
    blank = np.full((100, 1, 32, 32), -0.5, np.float32)
    far = distribution_distances(encoder, blank, training)
    assert set(near) == set(far) == {"fid_encoder", "kid_encoder"}
    assert far["fid_encoder"].value > 5 * near["fid_encoder"].value
    assert far["kid_encoder"].mean > near["kid_encoder"].mean + 5 * near["kid_encoder"].standard_error
    assert (near["fid_encoder"].n_synthetic, near["kid_encoder"].n_real) == (100, 200)


def test_own_encoder_uses_segmenter_or_detector(tmp_path):
    segmenter = predictor(tmp_path / "model", ("t1", "flair"), ("wt",)).system
    detector = build_system(
        override(recipe("gan_detector_debug"), {"data.modalities": ["t1", "flair"], "data.classes": ["none", "tumour"]})
    )
    for system in (segmenter, detector):
        assert features(own_encoder(system), smooth_images(0, 2, channels=2)).shape[0] == 2

    class NoNetworks:
        networks = {}  # noqa: RUF012

    with pytest.raises(RunError, match="fid_encoder: this model has no segmenter or detector"):
        own_encoder(NoNetworks())


def onnx_file(path, side=299, width=2048):
    """A model whose features are each colour's mean, repeated."""
    onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    helper, numbers = onnx.helper, onnx.TensorProto
    spread = np.eye(3, width, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "spread"], ["features"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", numbers.FLOAT, ["N", 3, side, side])],
        [helper.make_tensor_value_info("features", numbers.FLOAT, ["N", width])],
        [onnx.numpy_helper.from_array(spread, "spread")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def test_distribution_distances_over_inception_are_named_fid(tmp_path):
    inception = load_inception(onnx_file(tmp_path / "inception.onnx"))
    grey = np.stack([np.full((1, 16, 16), value, np.float32) for value in (-0.5, 0.0, 0.5, 1.0)])
    found = features(inception, grey)
    assert found.shape == (4, 2048)
    assert found[:, :4] == pytest.approx(np.array([[v, v, v, 0] for v in (-0.5, 0.0, 0.5, 1.0)]), abs=1e-5)
    distances = distribution_distances(inception, grey - 0.25, grey)
    assert set(distances) == {"fid", "kid"}
    assert distances["fid"].value == pytest.approx(3 * 0.25**2, abs=1e-5)
    with pytest.raises(DataError, match="images of 4 channels"):
        features(inception, np.zeros((1, 4, 16, 16), np.float32))


def test_load_inception_rejects_invalid_files(tmp_path, monkeypatch):
    with pytest.raises(RunError, match="is not there"):
        load_inception(tmp_path / "missing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"weights")
    with pytest.raises(RunError, match=r"broken\.onnx: is not a model"):
        load_inception(tmp_path / "broken.onnx")
    with pytest.raises(RunError, match=r"takes \(N, 3, 299, 299\) and gives \(N, 2048\)"):
        load_inception(onnx_file(tmp_path / "small.onnx", side=128, width=16))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match="needs the onnx extra"):
        load_inception(tmp_path / "inception.onnx")
