"""Exports a segmenter as ONNX, and checks it against PyTorch before the file is kept."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ganseg_dist.data.listing import quiet
from ganseg_dist.errors import MissingDependency, RunError
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.systems.base import Segments
from ganseg_dist.systems.regions import Head, region_probability

TOLERANCE = 1e-4
"""Largest probability difference between ONNX Runtime and PyTorch."""


class _Segmenter(nn.Module):
    """Prepared slices to region probabilities."""

    def __init__(self, network: nn.Module, head: Head) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, image: Tensor) -> Tensor:
        return region_probability(self.network(image), self.head)


def export_onnx(predictor: Predictor, file: Path) -> float:
    """Write prepared slices (N, C, size, size) in [-1, 1] to probabilities (N, R, size, size); N is free.

    The file's metadata name the modalities and regions in order, and the label scheme.

    Returns the largest difference from PyTorch's output. Raises RunError when it exceeds TOLERANCE, and
    MissingDependency when the onnx extra is not installed.
    """
    try:
        import onnxruntime
        from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError:
        raise MissingDependency("--onnx: needs the onnx extra: pip install 'ganseg-dist[onnx]'") from None
    system = cast("Segments", predictor.system)
    if predictor.config.system.task != "segmentation":
        raise RunError(f"--onnx: writes segmenters, and {predictor.config.system.title} is none; leave it out")
    segmenter = _Segmenter(system.networks["segmenter"], system.head).eval()
    size = predictor.config.data.size
    rng = np.random.default_rng(0)
    example = torch.from_numpy(rng.uniform(-1, 1, (3, len(predictor.modalities), size, size)).astype(np.float32))
    batch = torch.export.Dim("batch", min=1, max=4096)
    # The exporter warns of a missing torchvision, which is not needed, and of PyTorch's deprecations.
    with quiet("torch.onnx"), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            segmenter,
            (example,),
            dynamo=True,
            input_names=["image"],
            output_names=["probability"],
            dynamic_shapes={"image": {0: batch}},
            verbose=False,
        )
    assert program is not None
    ClearMetadataAndDocStringPass()(program.model)  # stack traces, with paths of this machine
    program.model.metadata_props.update(
        {
            "labels": json.dumps(predictor.scheme.to_json()),
            "regions": json.dumps(predictor.regions),
            "modalities": json.dumps(predictor.modalities),
        }
    )
    program.save(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    differences = []
    with torch.inference_mode():
        for count in (1, 3):
            expected = segmenter(example[:count]).numpy()
            exported = session.run(None, {"image": example[:count].numpy()})[0]
            differences.append(np.abs(expected - exported).max())
    difference = float(np.max(differences))  # NaN where any is
    if not difference <= TOLERANCE:
        file.unlink()
        raise RunError(f"{file}: ONNX Runtime differs from PyTorch by {difference:.2g}; not kept")
    return difference
