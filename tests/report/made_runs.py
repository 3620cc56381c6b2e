"""Run folders made of numbers alone: finished, just trained, plain U-Net, pictures without spacing, classifiers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.ndimage import binary_dilation, gaussian_filter, shift

from ganseg_dist.config import override
from ganseg_dist.data.labels import BRATS
from ganseg_dist.display import PNG_TEXT
from ganseg_dist.evaluation.classification import save_classification
from ganseg_dist.evaluation.results import ImageRow
from ganseg_dist.federation.policy import SitePolicy
from ganseg_dist.federation.site_settings import SiteSettings
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipe

MRI = ["t1", "t1ce", "t2", "flair"]
SITES = {"Bergen": 9, "Leuven": 7, "Ulm": 5}
SCORES = {
    "dice": (0.8, 0.05),
    "iou": (0.7, 0.06),
    "sensitivity": (0.83, 0.05),
    "specificity": (0.995, 0.002),
    "hd95": (9.4, 3.0),
    "lesion_dice": (0.71, 0.08),
    "lesion_f1": (0.77, 0.07),
    "lesions_missed": (0.4, 0.2),
}


def finished_run(root: Path) -> Run:
    """A complete run with a GAN on three regions of a phantom; names hold characters that HTML must escape."""
    run = _described(root / "phantom-ganet-seg-01", "ganet_seg_small", ["wt", "tc", "et"], MRI, phantom=True)
    run.write("history.json", [*_healthy_history(14), *_segment_history(40, ["wt", "tc", "et"], supervised=10)])
    dice = {"epoch": 38, "best_of": ["dice_wt", "dice_tc", "dice_et"]}
    run.describe(kept={"healthy": {"epoch": 13, "best_of": ["hole_l1"]}, "segment": dice})
    _evaluate(run, "test", ["wt", "tc", "et"], channels=4, unit="mm", gan=True)
    return run


def just_trained_run(root: Path) -> Run:
    """A run after its first epoch, without evaluation."""
    run = Run(root / "fresh")
    run.describe(name="fresh", recipe="ganet_seg_debug", status="running")
    run.write("history.json", _healthy_history(1))
    return run


def plain_unet_run(root: Path) -> Run:
    """A run of a plain U-Net."""
    run = _described(root / "plain", "ganet_seg_small", ["wt"], MRI, changes={"system.gan": False})
    run.write("history.json", _segment_history(12, ["wt"], supervised=12))
    _evaluate(run, "validation", ["wt"], channels=4, unit="mm", gan=False)
    return run


def picture_run(root: Path) -> Run:
    """A run on colour pictures without spacing: distances in pixels."""
    run = _described(root / "pictures", "ganet_seg_debug", ["wt"], ["red", "green", "blue"])
    run.write("history.json", [*_healthy_history(2), *_segment_history(2, ["wt"], supervised=1)])
    _evaluate(run, "test", ["wt"], channels=3, unit="px", gan=True)
    return run


def osmosis_run(root: Path) -> Run:
    """A run of GAN-OSMOSIS, which has no model of healthy tissue."""
    run = _described(root / "osmosis", "gan_osmosis_debug", ["wt"], MRI)
    run.write("history.json", _segment_history(2, ["wt"], supervised=2))
    _evaluate(run, "test", ["wt"], channels=4, unit="mm", gan=False)
    return run


def federated_run(root: Path, sites: int = 3) -> Run:
    """A federation of two stages, in which one site misses a round and has an update left out."""
    changes = {"federation.encoding": "fp16"}
    run = _described(root / "together.federated", "ganet_seg_debug", ["wt"], MRI, changes=changes)
    run.write("history.json", [*_healthy_history(4), *_segment_history(8, ["wt"], supervised=8)])
    run.describe(
        absent=["discriminator"],
        kept={"healthy": {"epoch": 3, "best_of": ["hole_l1"]}, "segment": {"epoch": 6, "best_of": ["dice_wt"]}},
    )
    names = list(SITES)[:sites] + [f"site{number}" for number in range(4, sites + 1)]
    run.write("federation.json", {
        "rounds": [_round(number, names) for number in range(1, 13)],
        "quarantined": [
            {"site": names[-1], "round": 6, "reason": "the change's norm is 9.1 times the usual one, more than 5"},
            {"site": names[-1], "round": 7, "reason": "<b>: holds values that are not finite"},
        ],
        "sites": {name: {"patients": 9 - at % 5, "cases": 9 - at % 5, "slices": 90} for at, name in enumerate(names)},
    })  # fmt: skip
    at_sites = {
        name: {arm: _around(level - 0.02 * (at % 5), 0.05) for arm, level in ARMS.items()}
        for at, name in enumerate(names)
    }
    scores = {
        "score": "wt/dice",
        "title": "Dice of the tumour",
        **{name: _around(level, 0.03) for name, level in (("federated", 0.81), ("pooled", 0.83), ("alone", 0.7))},
        "less_pooled": {"difference": _around(-0.02, 0.03), "differs": False, "p_sign_flip": 0.31},
        "less_alone": {"difference": _around(0.11, 0.04), "differs": True, "p_sign_flip": 0.001},
        "percent_of_pooled": 97.6,
        "worst_site": names[min(4, sites - 1)],
        "at_sites": at_sites,
    }
    run.write("comparison.json", {"patients_known": True, "scores": [scores]})
    return run


def simulate(run: Run, tested: Mapping[str, Sequence[str]], *, minimum_group: int = 1) -> None:
    """The sites' folders of a simulation, each with its test patients alone."""
    for name, patients in tested.items():
        split = {"train": [], "validation": [], "test": list(patients)}
        policy = SitePolicy(minimum_group=minimum_group)
        settings = SiteSettings(name=name, data=Path("cohort"), patients=patients, split=split, policy=policy)
        (run.folder / "sites" / name).mkdir(parents=True)
        (run.folder / "sites" / name / "site.toml").write_text(settings.to_toml())


ARMS = {"federated": 0.81, "pooled": 0.83, "mean of the sites alone": 0.7, "the site alone": 0.72}


def _round(number: int, names: list[str]) -> dict[str, Any]:
    stage, epoch = ("healthy", number - 1) if number <= 4 else ("segment", number - 5)
    taking = names[:-1] if number in (6, 7) else names
    score, level = ("hole_l1", 0.3 / number) if stage == "healthy" else ("dice_wt", 0.8 - 0.5 / (epoch + 1))
    return {
        "round": number,
        "stage": stage,
        "first": epoch,
        "until": epoch + 1,
        "scores": {score: level},
        "sites": {
            name: {
                "examples": 90.0 - 10 * (at % 5),
                "weight": (90 - 10 * (at % 5)) / sum(90 - 10 * (i % 5) for i in range(len(taking))),
                "losses": {f"{stage}/supervised/segmentation": 1 / number},
                "scores": {score: level + 0.03 * math.sin(at + number / 3) - 0.02 * (at % 5)},
            }
            for at, name in enumerate(taking)
        },
        "bytes_out": 400_000 * len(names),
        "bytes_in": 20_000 * len(names),
        "epsilon": 0.8 * math.sqrt(number),
    }


def draw_sheet(run: Run, stage: str, step: int, *, rows: int, columns: int, caption: str = "") -> Path:
    """A sheet of examples where MLflow keeps it, of squares of 64 pixels; that of row 2 and column 3 has level 23."""
    levels = np.add.outer(10 * np.arange(1, rows + 1), np.arange(columns))
    squares = np.kron(levels, np.ones((64, 64))).astype(np.uint8)
    folder = run.folder.parent / "mlartifacts" / run.mlflow_id / "artifacts/examples" / stage
    folder.mkdir(parents=True)
    path = folder / f"step-{step:07d}.png"
    text = PngInfo()
    text.add_text(PNG_TEXT, caption)
    Image.fromarray(np.pad(squares, ((18, 0), (0, 0)))).save(path, pnginfo=text)
    return path


def classifier_run(root: Path) -> Run:
    """A run of four classes, one without images, from images and their k-means masks."""
    classes = ["glioma", "meningioma", "no <b>tumour</b>", "pituitary"]
    run = _described(
        root / "classifier", "dl_gan_cnn_small", None, ["grey"], changes={"data.classes": classes, "train.epochs": 9}
    )
    run.write("history.json", _classifier_history(9))
    run.describe(kept={"classify": {"epoch": 2, "best_of": ["cross_entropy"]}})
    folder = run.evaluation("test")
    elbow = [(k, 6400.0 / k**2) for k in range(1, 9)]
    save_classification(folder, _called(classes, (20, 16, 24, 0)), classes, elbow=elbow)
    return run


def detector_run(root: Path) -> Run:
    """A run of two classes with an operating point; ten slices a patient, some of unknown class."""
    classes = ["no lesion", "lesion"]
    run = _described(root / "detector", "gan_detector_small", ["wt"], MRI, changes={"data.classes": classes})
    run.write("history.json", _classifier_history(3))
    validation = _called(classes, (15, 15), seed=1)
    save_classification(run.evaluation("test"), _called(classes, (30, 20), unknown=3), classes, validation)
    return run


def _called(classes: list[str], sizes: tuple[int, ...], *, unknown: int = 0, seed: int = 0) -> list[ImageRow]:
    """Images of each class, ten a patient, in which the true class is a little more probable than the others."""
    rng = np.random.default_rng(seed)
    truths = [index for index, size in enumerate(sizes) for _ in range(size)]
    rows = []
    for number, truth in enumerate(truths):
        logits = rng.normal(size=len(classes)) + 1.5 * (np.arange(len(classes)) == truth)
        probability = np.exp(logits) / np.exp(logits).sum()
        patient, name = f"Ulm-p{number // 10:03d}", classes[truth] if number >= unknown else None
        called = classes[int(probability.argmax())]
        rows.append(ImageRow(f"{patient}-scan", patient, "Ulm", number % 10, name, called, tuple(probability)))
    return rows


def _described(
    folder: Path,
    name: str,
    regions: list[str] | None,
    modalities: list[str],
    *,
    phantom: bool = False,
    changes: dict[str, Any] | None = None,
) -> Run:
    run = Run(folder)
    resolved = {"data.modalities": modalities, "data.regions": regions, **(changes or {})}
    run.write("config.json", json.loads(override(recipe(name), resolved).to_json()))
    run.describe(
        name=run.name,
        recipe=name,
        status="finished",
        created="2026-11-21T12:40:11+0000",
        seconds=4921.4,
        version="0.1.0",
        commit="93397b5c0ffe+",
        workers=2,
        device="cpu",
        command=f"ganseg train {name} --data /data/cohort --run-name {run.name}",
        mlflow={"uri": "sqlite:///mlflow.db", "run_id": "0f1e2d3c4b5a", "experiment_id": "1"},
    )
    cases = [
        {"id": f"{site}-{n:03d}", "patient": f"{site}-p{n:03d}", "site": site, "content": f"{site}{n}"}
        for site, size in SITES.items()
        for n in range(size)
    ]
    patients = [case["patient"] for case in cases]
    run.write("split.json", {"train": patients[0:13], "validation": patients[13:16], "test": patients[16:]})
    run.write(
        "data.json",
        {
            "root": "/data/cohort",
            "layout": "brats",
            "phantom": phantom,
            "synthetic": False,
            "modalities": modalities,
            "regions": regions or [],
            "channels": [],
            "labels": BRATS.to_json(),
            "otherwise_labelled": 0,
            "cases": cases,
            "excluded": [
                {
                    "check": "mask-shape",
                    "severity": "error",
                    "case": "Ulm-<b>007</b>",
                    "problem": "mask and image differ in shape: 240x240x155 and 240x240x150",
                    "remedy": "resample the mask to the image's grid",
                    "file": "seg.nii.gz",
                }
            ],
        },
    )
    return run


def _healthy_history(epochs: int) -> list[dict[str, Any]]:
    return [
        {
            "stage": "healthy",
            "epoch": epoch,
            "step": 20 * (epoch + 1),
            "workers": 1,
            "losses": {
                "generator/adversarial": 0.7 + 0.05 * math.sin(epoch),
                "generator/hole_l1": 0.06 + 0.3 * math.exp(-epoch / 3),
                "discriminator/discriminator": 1.35 - 0.02 * epoch,
            },
            "scores": {"hole_l1": 0.07 + 0.2 * math.exp(-epoch / 3)},
        }
        for epoch in range(epochs)
    ]


def _classifier_history(epochs: int) -> list[dict[str, Any]]:
    """Cross-entropy is lowest in epoch 3, accuracy highest in the last."""
    return [
        {
            "stage": "classify",
            "epoch": epoch,
            "step": 10 * (epoch + 1),
            "workers": 1,
            "losses": {"classifier/cross_entropy": 1.4 - 0.1 * epoch},
            "scores": {"accuracy": 0.3 + 0.05 * epoch, "cross_entropy": 1.0 + 0.1 * abs(epoch - 2)},
        }
        for epoch in range(epochs)
    ]


def _segment_history(epochs: int, regions: list[str], *, supervised: int) -> list[dict[str, Any]]:
    history = []
    for epoch in range(epochs):
        loss = 0.15 + 0.9 * math.exp(-epoch / 6)
        losses = {"supervised/segmentation": loss}
        if epoch >= supervised:
            losses = {
                "adversarial/segmentation": loss,
                "adversarial/adversarial": 0.9 + 0.1 * math.cos(epoch),
                "adversarial/sparsity": 0.02,
                "adversarial/size": 0.3 * math.exp(-epoch / 15),
                "adversarial/weight_segmentation": 1.0,
                "adversarial/weight_adversarial": 0.004 * (1 + 0.3 * math.sin(epoch)),
                "adversarial/weight_sparsity": 0.4,
                "adversarial/weight_size": 0.09,
            }
        scores = {
            f"dice_{region}": 0.82 - 0.05 * index - 0.6 * math.exp(-epoch / 5) + 0.01 * math.sin(3 * epoch + index)
            for index, region in enumerate(regions)
        }
        history.append(
            {"stage": "segment", "epoch": epoch, "step": 30 * epoch, "workers": 1, "losses": losses, "scores": scores}
        )
    return history


def _evaluate(run: Run, part: str, regions: list[str], *, channels: int, unit: str, gan: bool) -> None:
    folder = run.evaluation(part)
    folder.mkdir(parents=True)
    methods = [(run.name, "model", 0.0), ("FLAIR threshold", "baseline", -0.24)]
    if gan:
        methods.append(("Plain U-Net, same schedule", "comparison", -0.02))
    rows = [
        {"name": name, "kind": kind, "n": 21, "scores": _scores(regions, unit, shift)} for name, kind, shift in methods
    ]
    paired = [
        {
            "score": f"{regions[0]}/{score}",
            "a": methods[0][0],
            "b": name,
            "difference": _around(scale * -worse, abs(scale) * 0.03),
            "differs": worse < -0.1,
            "p_sign_flip": 0.0004 if worse < -0.1 else 0.21,
            "p_wilcoxon": 0.0004 if worse < -0.1 else None,
        }
        for name, _, worse in methods[1:]
        for score, scale in (("dice", 1), (f"hd95_{unit}", -40))
    ]
    summary = {
        "part": part,
        "n_cases": 21,
        "n_patients": 21,
        "distance_unit": unit,
        "absent": [],
        "implausible": {},
        "rows": rows,
        "paired": paired,
        "detection": _detection() if gan else None,
        "evidence": _evidence() if gan else None,
        "calibrated_on": 3,
        "thresholds": dict.fromkeys(regions, 0.5),
    }
    run.write(f"evaluation/{part}/summary.json", summary)
    _write_cases(folder / "cases.csv", regions, unit)
    _write_gallery(folder / "gallery.npz", channels, len(regions), gan=gan, sides_known=unit == "mm")


def _scores(regions: list[str], unit: str, worse: float) -> dict[str, Any]:
    scores = {}
    for index, region in enumerate(regions):
        for score, (level, spread) in SCORES.items():
            name = f"{score}_{unit}" if "hd95" in score else score
            away = -40 * worse if "hd95" in score else worse * (score != "specificity") - 0.04 * index
            mean = level + away if level > 1 else min(level + away, 1.0)
            scores[f"{region}/{name}"] = _around(mean, spread)
    return scores


def _around(mean: float, spread: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": 21}


def _detection() -> dict[str, Any]:
    rows = []
    for threshold in (0.1, 0.2, 0.28, 0.3, 0.4):
        tp, fp = round(160 * threshold**0.4 * 1.3), round(300 * threshold**1.5)
        tp = min(tp, 160)
        rows.append(
            {
                "threshold": threshold,
                "accuracy": (tp + 300 - fp) / 460,
                "sensitivity": tp / 160,
                "specificity": 1 - fp / 300,
                "youden_j": tp / 160 - fp / 300,
                "tp": tp,
                "fn": 160 - tp,
                "fp": fp,
                "tn": 300 - fp,
            }
        )
    roc = [(0.0, 0.0), *((row["fp"] / 300, row["tp"] / 160) for row in rows), (1.0, 1.0)]
    return {
        "auroc": 0.8,
        "auprc": 0.71,
        "n_slices": 460,
        "n_abnormal": 160,
        "score": "mean",
        "chosen": 0.28,
        "rows": rows,
        "roc": roc,
    }


def _evidence() -> dict[str, Any]:
    losses = {"true": 0.41, "eroded": 0.66, "dilated": 0.38, "shifted": 0.83, "whole foreground": 0.44, "empty": 1.12}
    margins = {name: loss - losses["true"] for name, loss in losses.items() if name != "true"}
    feedback = {
        "losses": {name: _around(loss, 0.1) for name, loss in losses.items()},
        "margins": {
            name: {"difference": _around(margin, 0.02), "differs": abs(margin) > 0.02}
            for name, margin in margins.items()
        },
        "cosine": _around(0.01, 0.02),
        "grown": _around(0.33, 0.05),
        "shrunk": _around(0.71, 0.05),
    }
    holes = {
        "hole_l1": _around(0.071, 0.008),
        "biharmonic_l1": _around(0.094, 0.011),
        "guess_l1": _around(0.105, 0.012),
        "n_holes": 240,
        "psnr": 24.31,
        "ssim": 0.871,
        "less_biharmonic": {"difference": _around(-0.023, 0.004), "differs": True},
    }
    return {"holes": holes, "feedback": feedback}


def _write_cases(path: Path, regions: list[str], unit: str) -> None:
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as stream:
        scores = [f"{region}/{name}" for region in regions for name in ("dice", f"hd95_{unit}", "lesion_f1")]
        writer = csv.DictWriter(stream, ["case", "patient", "site", *scores])
        writer.writeheader()
        for site, size in SITES.items():
            for n in range(size):
                values = {s: rng.uniform(2, 30) if "hd95" in s else rng.beta(8, 2) for s in scores}
                if n == 3:
                    values[scores[-1]] = ""
                writer.writerow({"case": f"{site}-{n:03d}", "patient": f"{site}-p{n:03d}", "site": site, **values})


def _write_gallery(path: Path, channels: int, regions: int, *, gan: bool, sides_known: bool) -> None:
    rng = np.random.default_rng(1)
    arrays: dict[str, Any] = {}
    index = []
    for k, (rank, away, dice) in enumerate((("best", 1, 0.94), ("median", 4, 0.82), ("worst", 11, 0.31))):
        side = 96
        y, x = np.mgrid[:side, :side]
        foreground = ((x - 48) / 38) ** 2 + ((y - 48) / 44) ** 2 < 1
        texture = gaussian_filter(rng.normal(size=(channels, side, side)), (0, 3, 3)) * 3
        centre = (60 + 3 * k, 40 + 4 * k)
        radius = np.hypot(x - centre[0], y - centre[1]) + 2 * gaussian_filter(rng.normal(size=(side, side)), 4) * 8
        truth = np.stack([(radius < 15 - 4 * r) & foreground for r in range(regions)])
        image = np.where(foreground, -0.3 + 0.35 * texture + 0.5 * truth[0], -1).clip(-1, 1).astype(np.float32)
        predicted = np.stack([shift(binary_dilation(t).astype(float), (away / 2, away), order=0) > 0.5 for t in truth])
        arrays |= {
            f"{k}/image": image,
            f"{k}/truth": truth.astype(np.uint8),
            f"{k}/predicted": predicted.astype(np.uint8),
        }
        if gan:
            anomaly = gaussian_filter(truth[0].astype(float), 5) * 0.6 + 0.15 + 0.05 * texture[0]
            filled = np.where(predicted[0], -0.3 + 0.2 * texture, image)
            arrays |= {
                f"{k}/anomaly": anomaly[None].clip(0, 1).astype(np.float32),
                f"{k}/reconstruction": filled.astype(np.float32),
            }
        entry = {"k": k, "case": f"Ulm-00{k}", "rank": rank, "slice": 70 + k, "dice": dice}
        index.append(entry | {"sides_known": sides_known})
    np.savez_compressed(path, index=np.array(json.dumps(index)), **arrays)
