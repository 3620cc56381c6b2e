"""What `ganseg synthesize` does: generate images, audit, measure and write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganseg_dist.cli import show
from ganseg_dist.cli.models import cases_of_part, finished_run, read_slices
from ganseg_dist.cli.remote_runs import fetch_runs
from ganseg_dist.cli.synthesize import SynthesisOptions
from ganseg_dist.data.cohort import Cohort
from ganseg_dist.data.preprocess import intensities_of
from ganseg_dist.data.readers import read_cohort
from ganseg_dist.data.slices import SliceSet
from ganseg_dist.display import Convention, View, display_convention
from ganseg_dist.errors import ConfigError, DataError, RunError
from ganseg_dist.inference.predictor import Predictor
from ganseg_dist.metrics.synthesis import FrechetDistance, KernelDistance
from ganseg_dist.runs import Run
from ganseg_dist.synthesis.encoder import Encoder, load_inception, own_encoder
from ganseg_dist.synthesis.folder import SynthesisEvidence, check_synthetic_folder, write_classes, write_pairs
from ganseg_dist.synthesis.generate import (
    COUNT,
    Generated,
    GeneratedSlices,
    check_generator,
    generate,
    generate_from_masks,
)
from ganseg_dist.synthesis.judge import NO_JUDGE, Judge, check_judge, judged
from ganseg_dist.synthesis.memorisation import Audit, Limits, audit
from ganseg_dist.synthesis.neighbours import neighbour_figure
from ganseg_dist.synthesis.references import (
    HeldOut,
    RealImages,
    class_quality,
    generated_quality,
    held_out_images,
    training_images,
)
from ganseg_dist.synthesis.results import FromClassesQuality, FromMasksQuality, Judgement, Quality

COUNTERPARTS = {"--count": "--copies", "--copies": "--count"}
"""For an option of one kind of generator, the corresponding option of the other kind."""


def make_synthetic(options: SynthesisOptions) -> None:
    """Generate synthetic images; nothing is written where too many repeat training images, which is a RunError."""
    convention = display_convention()
    judge, seed, deformed = options.judge, options.seed, not options.as_they_are
    fetch_runs(options.run, *([] if judge is None else [judge]))
    trained = finished_run(options.run)
    check_synthetic_folder(options.out)
    predictor = Predictor.load(trained.model, "cuda" if options.gpu else "cpu")
    check_generator(predictor.config)
    encoder = own_encoder(predictor.system) if options.inception is None else load_inception(options.inception)
    facts: dict[str, Any] = {"run": trained.name, "recipe": predictor.config.recipe, "seed": seed}
    generated: GeneratedSlices | Generated
    image_judge = None
    if predictor.config.system.task == "classification":
        mask_options = {
            "--masks": options.masks, "--copies": options.copies, "--as-they-are": options.as_they_are,
            "--layout": options.layout, "--labels": options.labels,
        }  # fmt: skip
        _check_unused(mask_options, f"{trained.name} generates from noise")
        image_judge = None if judge is None else _judge(judge, trained, predictor)
        count = options.count or COUNT
        with show.bar("Generating") as advance:
            generated = generate(predictor, classes=options.classes, count=count, seed=seed, advance=advance)
        cohort = _training_cohort(trained)
        training = _training_slices(trained, cohort, predictor)
        _check_learnt_classes(trained, generated, training)
    else:
        class_options = {"--count": options.count, "--class": options.classes, "--judge": judge}
        _check_unused(class_options, f"{trained.name} generates images from masks")
        cohort = _training_cohort(trained)
        training = _training_slices(trained, cohort, predictor)
        slices = training if options.masks is None else _slices_of_masks(trained, predictor, options.masks, options)
        copies = options.copies or 1
        with show.bar("Generating") as advance:
            generated = generate_from_masks(
                predictor, slices, copies=copies, deformed=deformed, seed=seed, advance=advance
            )
        facts["deformed"] = deformed
    facts["phantom"] = cohort.phantom
    real = training_images(predictor, training)
    with show.bar("Comparing with the training images"):
        limits = Limits(share=options.most_memorised)
        audited = audit(generated.image, real.image, patients=real.patients, encoder=encoder, limits=limits)
    _check_no_copies(trained, audited)
    held_out = _held_out(trained, cohort, predictor)
    with show.bar("Measuring"):
        measured = _measure(generated, real, held_out, audited, encoder, image_judge)
        _write(options.out, generated, real, audited, predictor, measured, facts, convention)
    if cohort.phantom:
        show.echo("trained on a phantom: images called real below are a phantom's, not patients'")
    _report(measured, audited, real)
    kind = "images" if predictor.config.system.task == "classification" else "pairs"
    show.echo(f"written: {options.out} ({len(generated.image)} synthetic {kind})")


def _check_unused(options: Mapping[str, object], kind: str) -> None:
    """Raises ConfigError for a given option that does not apply to this kind of generator."""
    for name, value in options.items():
        if value:
            instead = f"give {COUNTERPARTS[name]} instead" if name in COUNTERPARTS else "leave it out"
            raise ConfigError(f"{name}: {kind}; {instead}")


def _judge(reference: str, run: Run, predictor: Predictor) -> Judge:
    """The judge of this run. Raises ConfigError when it may have seen generated images, or other data than the run."""
    judge_run = finished_run(reference)
    check_judge(judge_run.name, judge_run.config(), predictor.config)
    if judge_run.split() != run.split():
        raise ConfigError(
            f"--judge {judge_run.name}: its patients are split otherwise than {run.name}'s; give one alike"
        )
    return Judge(judge_run.name, Predictor.load(judge_run.model, predictor.device.type))


def _training_cohort(run: Run) -> Cohort:
    """The cohort that the run was trained on, as read now from its folder."""
    request = run.description().request
    if request is None:
        raise ConfigError(f"{run.name}: does not record where its data was; train it again to synthesize from it")
    return read_cohort(Path(request.data), request.layout, request.labels)


def _training_slices(run: Run, cohort: Cohort, predictor: Predictor) -> SliceSet:
    return read_slices(cases_of_part(run, cohort, "train"), predictor.config, "Reading the training images")


def _check_learnt_classes(run: Run, generated: Generated, training: SliceSet) -> None:
    """Raises RunError for a class without a training image, as generated images cannot show it."""
    names = run.config().data.classes or ()
    unseen = [name for name in dict.fromkeys(generated.classes) if not (training.label == names.index(name)).any()]
    if unseen:
        raise RunError(
            f"{run.name}: its generator saw no training image of {unseen[0]}; give other classes with --class, or "
            "train again with patients who have it"
        )


def _held_out(run: Run, cohort: Cohort, predictor: Predictor) -> HeldOut:
    """Images of its validation and test patients, for comparison only, or the reason why there are none.

    A problem with them is reported only on the terminal: it may name a patient, and the written files must not.
    """
    split = run.split()
    parts = [part for part, patients in (("validation", split.validation), ("test", split.test)) if patients]
    if not parts:
        return "the run held no patient out"
    try:
        cases = [case for part in parts for case in cases_of_part(run, cohort, part)]
        return held_out_images(predictor, read_slices(cases, predictor.config, "Reading the held-out images"))
    except DataError as error:
        show.warn(str(error))
        return "they cannot be read now"


def _slices_of_masks(run: Run, predictor: Predictor, masks: Path, options: SynthesisOptions) -> SliceSet:
    """Slices with a mask, without the run's validation and test patients. Raises DataError when there are none."""
    cohort, split = read_cohort(masks, options.layout, options.labels), run.split()
    held_out = {*split.validation, *split.test}
    usable = [case for case in cohort.cases if case.mask is not None and case.patient not in held_out]
    if not usable:
        raise DataError(f"{masks}: holds no mask of a patient that {run.name} may generate from; give other --masks")
    missing = [name for name in predictor.modalities if name not in cohort.modalities]
    if missing:
        raise DataError(
            f"{masks}: its images have no {', '.join(missing)}; images are generated within the foreground that their "
            f"own images show: give masks with images of {', '.join(predictor.modalities)}"
        )
    return read_slices(usable, predictor.config, "Reading the masks")


def _check_no_copies(run: Run, audited: Audit) -> None:
    if audited.rejected:
        raise RunError(
            f"{run.name}: {audited.share:.1%} of {len(audited.images)} synthetic images repeat training images, more "
            f"than {audited.limits.share:.1%}; train with more patients or fewer epochs of the GAN, nothing was written"
        )


def _measure(
    generated: GeneratedSlices | Generated,
    real: RealImages,
    held_out: HeldOut,
    audited: Audit,
    encoder: Encoder,
    judge: Judge | None,
) -> FromMasksQuality | FromClassesQuality:
    if isinstance(generated, GeneratedSlices):
        return generated_quality(generated, real, held_out, audited, encoder)
    judgement = Judgement(left_out=NO_JUDGE)
    if judge is not None:
        judgement = Judgement(
            run=judge.run,
            generated=judged(judge, generated.image, generated.classes),
            held_out=None if isinstance(held_out, str) else judged(judge, held_out.image, held_out.classes),
        )
    return FromClassesQuality(
        median_percentile=audited.median_percentile,
        flipped=real.flipped,
        classes=class_quality(generated, real, held_out, encoder),
        judge=judgement,
    )


def _write(
    out: Path,
    generated: GeneratedSlices | Generated,
    real: RealImages,
    audited: Audit,
    predictor: Predictor,
    measured: FromMasksQuality | FromClassesQuality,
    facts: Mapping[str, Any],
    convention: Convention,
) -> None:
    modalities, regions = predictor.modalities, predictor.regions
    sides_known = real.sides_known and (not isinstance(generated, GeneratedSlices) or generated.sides_known)
    view = View.of(convention, sides_known=sides_known)
    figure = neighbour_figure(
        generated, audited, real.image, modalities, regions, phantom=facts["phantom"], view=view, flipped=real.flipped
    )
    evidence = SynthesisEvidence(audited, measured, figure, facts)
    if isinstance(generated, GeneratedSlices):
        on_background = intensities_of(modalities, predictor.config.data) == "tissue"
        write_pairs(out, generated, modalities, regions, predictor.scheme, evidence, on_background=on_background)
    else:
        write_classes(out, generated, modalities, evidence)


def _report(measured: FromMasksQuality | FromClassesQuality, audited: Audit, real: RealImages) -> None:
    count = len(audited.images)
    sets = measured.classes if isinstance(measured, FromClassesQuality) else {"": measured}
    for name, quality in sets.items():
        _report_distances(name, quality)
    if any(quality.floor_has_fewer for quality in sets.values()):
        show.echo("note: fewer images make a Frechet distance larger, not a kernel distance: compare by the kernel's")
    if isinstance(measured, FromMasksQuality):
        ssim = f"{show.interval(measured.ssim)} (n = {count}, {measured.ssim.n} patients)"
        show.echo(f"SSIM with the real image of the mask: {ssim}")
    elif measured.judge.left_out is None:
        _report_judge(measured.judge)
    show.echo(
        f"{len(audited.memorised)} of {count} synthetic images are nearer to one of {audited.n_training} training "
        f"images{' (flipped copies included)' if real.flipped else ''} than such images are to each other"
    )
    show.echo(
        f"median percentile of their distances: {audited.median_percentile:.1f}; about 50 as real images of other "
        "patients, lower where copied or blurred, near 100 where unlike any real image: then none nearer proves nothing"
    )


def _report_distances(class_name: str, measured: Quality) -> None:
    if measured.distances is None or measured.held_out is None:
        show.echo(
            f"{class_name}: {measured.n_synthetic} synthetic and {measured.n_real} training images are too few "
            "for a distance"
        )
        return
    before = class_name + ", " if class_name else ""
    for name, distances in measured.distances.items():
        (frechet, of_frechet), (kernel, of_kernel) = distances.items()
        assert isinstance(of_frechet, FrechetDistance)
        assert isinstance(of_kernel, KernelDistance)
        show.echo(
            f"{before}{name}: {frechet} {of_frechet.value:.4f}, "
            f"{kernel} {of_kernel.mean:.4f} (standard error {of_kernel.standard_error:.4f}; "
            f"n = {of_kernel.n_synthetic} against {of_kernel.n_real} training images)"
        )
    if measured.held_out.left_out is not None:
        show.echo(f"{before}held-out real images: not measured, {measured.held_out.left_out}")


def _report_judge(judgement: Judgement) -> None:
    for name, of_images in (("generated images", judgement.generated), ("held-out real images", judgement.held_out)):
        if of_images is None or of_images.accuracy is None:
            show.echo(f"judge: no {name}")
            continue
        each = ", ".join(
            f"{class_name} none" if of.accuracy is None else f"{class_name} {of.accuracy:.1%} of {of.n}"
            for class_name, of in of_images.classes.items()
        )
        show.echo(f"judge: {of_images.accuracy:.1%} of {of_images.n} {name} called by their class ({each})")
