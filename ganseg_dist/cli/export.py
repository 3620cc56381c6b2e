"""`ganseg export`: a model to carry elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer

from ganseg_dist.cli.words import RUN_HELP


def export(
    run: str = typer.Argument(metavar="RUN", help=RUN_HELP),
    out: Path = typer.Argument(metavar="DIR", help="Folder to write; it must not exist yet."),
    onnx: bool = typer.Option(
        False, "--onnx", help="Also write the segmenter as segmenter.onnx, checked against PyTorch."
    ),
) -> None:
    """Copy a run's model into a folder to carry elsewhere.

    Weights as safetensors, config, thresholds and model card: all that ganseg predict DIR INPUT needs. Neither
    MLflow nor Ray has to be installed there.
    """
    import shutil

    from ganseg_dist.atomic import whole_folder
    from ganseg_dist.cli.models import model_folder
    from ganseg_dist.errors import RunError
    from ganseg_dist.inference.predictor import Predictor

    folder = model_folder(run)
    if out.exists():
        raise RunError(f"{out}: exists already; choose another folder or remove it")
    predictor = Predictor.load(folder)
    difference = None
    with whole_folder(out) as unfinished:
        for file in folder.iterdir():
            shutil.copyfile(file, unfinished / file.name)
        if onnx:
            from ganseg_dist.inference.onnx_export import export_onnx

            difference = export_onnx(predictor, unfinished / "segmenter.onnx")
    typer.echo(f"exported: {out}")
    if difference is not None:
        typer.echo(f"segmenter.onnx: largest difference from PyTorch {difference:.1e}")
