"""`ganseg export`: a model to carry elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer


def export(
    run: str = typer.Argument(help="A run's name, folder or MLflow id."),
    out: Path = typer.Argument(metavar="DIR", help="Folder to write; must not exist."),
    onnx: bool = typer.Option(False, "--onnx", help="Also the segmenter as segmenter.onnx, checked against PyTorch."),
) -> None:
    """Copy a run's model: safetensors, config, thresholds and card. `ganseg predict DIR` needs nothing else.

    Neither MLflow nor Ray has to be installed where it is used.
    """
    import shutil
    import tempfile

    from ganseg_dist.cli.models import model_folder
    from ganseg_dist.errors import RunError
    from ganseg_dist.inference.predictor import Predictor

    folder = model_folder(run)
    if out.exists():
        raise RunError(f"{out}: exists already; choose another folder or remove it")
    predictor = Predictor.load(folder)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.absolute().parent) as temporary:
        unfinished = Path(temporary) / "model"
        shutil.copytree(folder, unfinished)
        difference = None
        if onnx:
            from ganseg_dist.inference.onnx_export import export_onnx

            difference = export_onnx(predictor, unfinished / "segmenter.onnx")
        unfinished.rename(out)
    typer.echo(f"exported: {out}")
    if difference is not None:
        typer.echo(f"segmenter.onnx: largest difference from PyTorch {difference:.1e}")
