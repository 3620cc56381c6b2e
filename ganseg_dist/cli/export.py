"""`ganseg export`: copy a model into a self-contained folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.errors import ConfigError, RunError


def export(
    run: str = typer.Argument(
        metavar="RUN",
        help="A run's name, its folder or its MLflow id; or the name of a ganseg experiment folds, for all its folds.",
    ),
    out: Path = typer.Argument(metavar="DIR", help="Folder to write; it must not exist yet."),
    onnx: bool = typer.Option(
        False, "--onnx", help="Also write the segmenter as segmenter.onnx, checked against PyTorch."
    ),
) -> None:
    """Copy a run's model into a folder to carry elsewhere.

    Weights as safetensors, config, thresholds and model card: all that ganseg predict DIR INPUT needs. Neither
    MLflow nor Ray has to be installed there. Of folds each model has a folder in DIR, and ensemble.json
    lists them.
    """
    from ganseg_dist.atomic import whole_folder
    from ganseg_dist.cli.models import fetch_models, model_folders
    from ganseg_dist.inference.ensemble import load_together, write_index
    from ganseg_dist.inference.model_folder import model_files
    from ganseg_dist.inference.predictor import Predictor

    fetch_models(run)
    members = model_folders(run)
    if out.exists():
        raise RunError(f"{out}: exists already; choose another folder or remove it")
    first, *others = members.values()
    if onnx and others:
        raise ConfigError(
            f"--onnx: writes one segmenter, and {run} has {len(members)}; export one of them, such as {first}"
        )
    predictor = Predictor(load_together(members))
    difference = None
    with whole_folder(out) as unfinished:
        for name, folder in members.items():
            target = unfinished / name if others else unfinished
            target.mkdir(exist_ok=True)
            for file in model_files(folder):
                shutil.copyfile(file, target / file.name)
        if others:
            write_index(unfinished, list(members))
        if onnx:
            from ganseg_dist.inference.onnx_export import export_onnx

            difference = export_onnx(predictor, unfinished / "segmenter.onnx")
    show.echo(f"exported: {out}")
    if difference is not None:
        show.echo(f"segmenter.onnx: largest difference from PyTorch {difference:.1e}")
