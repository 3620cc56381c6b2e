"""`ganseg predict`: masks for new images."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ganseg_dist.cli import show
from ganseg_dist.cli.options import GPU, LAYOUT_HELP
from ganseg_dist.errors import ConfigError
from ganseg_dist.plural import counted

if TYPE_CHECKING:
    from ganseg_dist.data.cohort import Case
    from ganseg_dist.data.scan import Scan

MOST_FILES_NAMED = 20
"""Largest number of files of one folder that are listed; of more only the count is printed."""


def predict(
    run: str = typer.Argument(
        metavar="RUN",
        help="A run; the name of a ganseg experiment folds, whose folds then predict together; or a folder that "
        "ganseg export made of either.",
    ),
    source: Path = typer.Argument(
        metavar="INPUT",
        help="A cohort or one case folder, a CSV manifest, a data set's imagesTs, NIfTI files named by case and "
        "modality, a folder of pictures for a model of pictures, or one file with a channel for each modality.",
    ),
    out: Path = typer.Option(..., metavar="DIR", help="Folder to write masks into."),
    probability: bool = typer.Option(False, "--probability", help="Also write each region's probability, 0 to 1."),
    anomaly: bool = typer.Option(
        False, "--anomaly", help="Also write the discriminator's anomaly map, 0 to 1 (GANet-Seg)."
    ),
    reconstruction: bool = typer.Option(
        False, "--reconstruction", help="Also write the healthy reconstruction, -1 to 1 (GANet-Seg, one model)."
    ),
    overlays: bool = typer.Option(
        False,
        "--overlays",
        help="Also write a picture of each case: its slice with the most lesion, each region outlined. "
        "GANSEG_DISPLAY=neurological shows the patient's left on the left; radiological, the default, on the right.",
    ),
    layout: str | None = typer.Option(None, metavar="NAME", help=LAYOUT_HELP.replace("DATA", "INPUT")),
    gpu: bool = GPU,
) -> None:
    """Segment or classify new images.

    NIfTI gives CASE_mask.nii.gz on the grid of the model's first modality, in the label values of its training
    masks; pictures give PNG of their size, black and white where there is one label; a classifier writes
    DIR/classes.csv, a line a slice. A file's channels are in the order of the files it was trained on; where those
    had one channel each, in the order of the modalities on the model card. Images need no mask; one that is there is
    not read. A lesion that lies outside the foreground, or over most of it, is warned of. A case that cannot be read is
    named and left out; the exit code is then 1.

    With the name of a ganseg experiment folds as RUN, its folds predict together: the mean of their probabilities,
    at the mean of their thresholds.
    """
    from ganseg_dist.cli.classification import predict_classes
    from ganseg_dist.cli.models import each_scan, fetch_models, model_folders
    from ganseg_dist.display import display_convention
    from ganseg_dist.evaluation.plausibility import implausible
    from ganseg_dist.inference.ensemble import load_together
    from ganseg_dist.inference.inputs import colour_mismatch_message, read_inputs, unread_test_images
    from ganseg_dist.inference.outputs import Extras, write_case
    from ganseg_dist.inference.predictor import Predictor
    from ganseg_dist.names import folder_names
    from ganseg_dist.report.overlay import write_overlay

    convention = display_convention()
    fetch_models(run)
    members = model_folders(run)
    predictor = Predictor(load_together(members), "cuda" if gpu else "cpu")
    system = predictor.config.system
    if (anomaly or reconstruction) and not system.knows_healthy_tissue:
        title = system.title if system.synthesises else f"{system.title} without its GAN"
        raise ConfigError(
            f"--anomaly, --reconstruction: {run} is a model of {title}, which makes neither; "
            "give a run whose discriminator learns healthy tissue, such as of ganet_seg with system.gan=true"
        )
    if anomaly and "discriminator" in predictor.absent:
        raise ConfigError(
            f"--anomaly: {run} is a federation's model, whose discriminators stayed at the sites; give a site's own "
            "model, sites/SITE/runs/NAME/model in the federation's folder"
        )
    if reconstruction and len(members) > 1:
        raise ConfigError(
            f"--reconstruction: {run} is {len(members)} models, each of which fills the lesion of its own mask; "
            f"give one of them, such as {next(iter(members.values()))}"
        )
    if system.task == "classification" and (probability or overlays):
        raise ConfigError(f"--probability, --overlays: {run} is a classifier; its probabilities are in classes.csv")
    cases = read_inputs(source, predictor.modalities, layout, predictor.channels)
    test_images = unread_test_images(source, cases)
    if test_images is not None:
        command = shlex.join(["ganseg", "predict", run, str(test_images), "--out", "DIR"])
        show.err.print(f"note: the test images in {test_images} are not among them; predict them with: {command}")
    warning = colour_mismatch_message(cases, predictor.modalities)
    if warning is not None:
        show.warn(warning)
    if system.task == "classification":
        _report_problems(predict_classes(predictor, cases, out))
        return
    extras = Extras(probability, anomaly, reconstruction)
    written: list[Path] = []
    names = folder_names(case.id for case in cases)
    renamed = [case.id for case in cases if names[case.id] != case.id]
    if renamed:
        show.err.print(
            f"note: {counted(len(renamed), 'case')} cannot name a file; {renamed[0]} is written as {names[renamed[0]]}",
        )

    def predict_scan(case: Case, scan: Scan) -> None:
        prediction = predictor.predict_scan(scan)
        if (flaw := implausible(prediction, predictor.config.data)) is not None:
            show.warn(f"{case.id}: {flaw.problem}; {flaw.remedy}")
        written.extend(write_case(case, prediction, predictor, out, extras, names[case.id]))
        if overlays:
            file = out / f"{names[case.id]}_overlay.png"
            regions, scheme = predictor.regions, predictor.scheme
            written.append(write_overlay(file, case.id, scan, prediction, regions, scheme, convention))

    failed = each_scan("Predicting", cases, predictor.modalities, predict_scan)
    for line in _describe_files(written):
        show.echo(line)
    if failed:
        show.echo(f"{len(failed)} of {len(cases)} cases left out", err=True)
    _report_problems(failed)


def _describe_files(files: list[Path]) -> list[str]:
    """A line per file, or one line with the count for a folder of many files."""
    by_folder = Counter(file.parent for file in files)
    lines = [
        str(file) if by_folder[file.parent] <= MOST_FILES_NAMED else f"{file.parent}: {by_folder[file.parent]} files"
        for file in files
    ]
    return list(dict.fromkeys(lines))


def _report_problems(problems: list[str]) -> None:
    for problem in problems:
        show.echo(f"error: {problem}", err=True)
    if problems:
        raise typer.Exit(1)
