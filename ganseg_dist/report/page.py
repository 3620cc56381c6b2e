"""Writes `runs/NAME/report.html`: all records of a run's folder, on one page without a single outside request."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ganseg_dist.atomic import write_text
from ganseg_dist.config import RunConfig
from ganseg_dist.display import Convention, display_convention
from ganseg_dist.evaluation.results import ArmDifference, ArmScores, Detection, Summary
from ganseg_dist.metrics.threshold import few_patients_warning
from ganseg_dist.plots.intervals import interval_chart, strip_chart
from ganseg_dist.plots.roc import roc_chart
from ganseg_dist.plots.save import svg
from ganseg_dist.plural import counted, duration
from ganseg_dist.printable import printable_lines
from ganseg_dist.report import pictures, score_text
from ganseg_dist.report.classification import class_view
from ganseg_dist.report.federated import federation_view
from ganseg_dist.report.generated import sheet_tiles, shows_generated
from ganseg_dist.report.reading import PARTS, Evaluation, Records
from ganseg_dist.report.section import Chart, KeyFigure, PartResults, Section, interval_bar, section_of
from ganseg_dist.report.training import stage_curves
from ganseg_dist.runs import Run
from ganseg_dist.systems import recipes

CHANGED = "+"
"""Ends the commit of a checkout with uncommitted changes."""

STOPPED = {"KeyboardInterrupt": "by hand, with Ctrl-C"}
"""By name of the exception."""

MOST_SITES = 30
"""With more sites than this, a figure with one row a site is unreadable."""

RegionLabel = Callable[[str], str]
"""A region's name on this page."""


def write_report(run: Run) -> Path:
    """Write the run's page and return its path. The page names what the folder lacks.

    Raises ConfigError for an unknown display convention, and RunError naming the file and field when something
    in the folder cannot be read.
    """
    convention = display_convention()
    path = run.folder / "report.html"
    write_text(path, render(Records.of(run), convention))
    return path


def render(records: Records, convention: Convention = Convention.RADIOLOGICAL) -> str:
    """The page's HTML."""
    environment = page_environment("report")
    environment.globals |= {
        name: getattr(score_text, name)
        for name in (
            "score_label", "direction", "number", "between", "interval_text", "p_value", "joined",
        )
    } | {"counted": counted, "duration": duration, "few_patients_warning": few_patients_warning}  # fmt: skip
    environment.filters |= {
        "svg": Markup,
        "describe_difference": describe_difference,
        "modality": score_text.modality_label,
        "measured_on": measured_on,
    }
    regions = _regions(records)
    region_label = partial(score_text.region_label, modalities=records.modalities)
    environment.globals |= {
        "region_label": region_label,
        "subjects": partial(subjects, records),
        "patients_known": records.patients_known,
        "subject": lambda part: "patient" if records.patients_known(part) else "image",
    }
    section = section_of(records.config)
    template = "classes.html.j2" if records.classifies else "report.html.j2"
    return environment.get_template(template).render(
        records=records,
        regions=regions,
        changed=(records.description.commit or "").endswith(CHANGED),
        created=score_text.moment(records.description.created),
        gan=records.config is None or records.config.system.synthesises,
        makes_images=shows_generated(records.config),
        generated=sheet_tiles(records.sheet, records.config) if records.sheet and records.config else [],
        unfinished=describe_unfinished(records),
        resume=resume_command(records),
        section=section,
        evaluations=[
            evaluation_view(evaluation, records, convention, environment, section) for evaluation in records.evaluations
        ],
        classifications=[
            class_view(classification, records.config, patients_known=records.patients_known(classification.part))
            for classification in records.classifications
        ],
        federation=federation_view(records),
        stages=stage_curves(
            records.history,
            partial(region_label, regions=regions),
            records.description.kept,
            records.federation.rounds if records.federation is not None else (),
        ),
        sites=site_table(records),
        fields=config_fields(records.config),
        commands=commands(records),
    )


def evaluation_view(
    evaluation: Evaluation,
    records: Records,
    convention: Convention,
    environment: Environment,
    section: Section | None,
) -> dict[str, Any]:
    """What report.html.j2 shows of one part, with the section of the system if it has one."""
    summary, regions = evaluation.summary, evaluation.summary.regions
    scores = tuple(dict.fromkeys(score.partition("/")[2] for row in summary.rows for score in row.scores))
    columns = tuple(score for score in score_text.MAIN_SCORES if score in scores)
    label = partial(score_text.region_label, regions=regions, modalities=records.modalities)
    examples = tuple(pictures.distinct(evaluation.examples))
    gan_modalities = (records.config.system.gan_modalities if records.config else None) or records.modalities
    results = PartResults(evaluation.file, summary, examples, records.modalities, gan_modalities, convention)
    measured = {score for case in evaluation.cases for score in case.scores}
    case_columns = (f"{region}/{score}" for region in regions for score in score_text.CASE_SCORES)
    return {
        "part": evaluation.part,
        "summary": summary,
        "cases": evaluation.cases,
        "key_figures": list(_key_figures(summary, label)),
        "verdicts": list(_verdicts(summary, label)),
        "columns": columns,  # the main scores, without their region
        "others": [score for score in scores if score not in columns],
        "charts": [*_method_charts(summary, label), *_case_charts(evaluation, label)],
        "overlays": pictures.overlay_strips(results),
        "own": _system_section(environment, section, results) if section is not None else None,
        "roc": _roc(summary.detection),
        "case_columns": [name for name in case_columns if name in measured],
    }


def subjects(records: Records, part: str, n: int, n_patients: int, thing: str = "case") -> str:
    """`9 cases of 7 patients`, or `9 images, patients unknown`."""
    if records.patients_known(part):
        return f"{counted(n, thing)} of {counted(n_patients, 'patient')}"
    return f"{counted(n, 'image')}, patients unknown"


def describe_unfinished(records: Records) -> str | None:
    """The state of an unfinished training, to be followed by `resume_command`; None for a finished one."""
    described = records.description
    if described.status == "finished":
        return None
    if described.status == "interrupted":
        by = f" ({STOPPED.get(described.error, described.error)})" if described.error else ""
        return f"Training was interrupted{by}. Resume it with:"
    return "Training has not finished. If no process is training this run, resume it with:"


def resume_command(records: Records) -> str:
    """A federation resumes with the command that started it: `ganseg train --resume` would train in one place."""
    command = records.description.command or ""
    return command if command.startswith("ganseg federate") else f"ganseg train --resume {records.name}"


def measured_on(summary: Summary, region: str) -> list[tuple[ArmScores, int]]:
    """The methods that were scored on the region, with the patients they were scored on."""
    patients = (
        (row, max((value.n for score, value in row.scores.items() if score.startswith(f"{region}/")), default=0))
        for row in summary.rows
    )
    return [(row, n) for row, n in patients if n]


def describe_difference(paired: ArmDifference) -> str:
    """The verdict on a difference: `better`, `worse`, `no difference shown`, or TOO_FEW."""
    return score_text.verdict(paired, paired.score) or score_text.TOO_FEW


def site_table(records: Records) -> list[tuple[str, Counter[str]]]:
    """Cases by site and part, largest site first."""
    if records.data is None:
        return []
    part_of = (
        {patient: part for part in PARTS for patient in getattr(records.split, part)}
        if records.split is not None
        else {}
    )
    sites: dict[str, Counter[str]] = {}
    for case in records.data.cases:
        counts = sites.setdefault(case.site, Counter())
        counts[part_of.get(case.patient, "unassigned")] += 1
    return sorted(sites.items(), key=lambda entry: (-entry[1].total(), entry[0]))


@dataclass(frozen=True, slots=True)
class ConfigField:
    """One dotted field, beside the value that the recipe alone gives."""

    name: str
    value: str
    recipe_value: str | None
    """None where it is the same, or the recipe is not installed."""


def config_fields(config: RunConfig | None) -> list[ConfigField]:
    """Every field of the resolved config, in its order."""
    if config is None:
        return []
    tree = _written(config)
    recipe = recipes().get(config.recipe)
    plain = _written(recipe()) if recipe is not None else tree
    return [
        ConfigField(name, value, plain.get(name) if plain.get(name) != value else None) for name, value in tree.items()
    ]


def commands(records: Records) -> list[str]:
    """The commands that reproduce this run; empty when the folder does not record its command."""
    description = records.description
    if description.command is None:
        return []
    root = shlex.quote(records.data.root) if records.data is not None else "DATA"
    typed = [f"git checkout {description.commit.removesuffix(CHANGED)}"] if description.commit else []
    typed.append(description.command)
    if any(evaluation.summary.calibrated_on for evaluation in records.evaluations):
        typed.append(f"ganseg calibrate {records.name} --data {root}")
    parts = [result.part for result in records.evaluations] + [result.part for result in records.classifications]
    for part in parts:
        source = root if part in PARTS else "OTHER_DATA"
        typed.append(f"ganseg evaluate {records.name} --data {source}" + ("" if part == "test" else f" --part {part}"))
    return typed


def _system_section(environment: Environment, section: Section, results: PartResults) -> Markup | None:
    view = section.view(results)
    return None if view is None else Markup(environment.from_string(section.template).render(view=view))


def _regions(records: Records) -> tuple[str, ...]:
    if records.config is not None and records.config.data.regions is not None:
        return records.config.data.regions
    return records.data.regions if records.data is not None else ()


def _written(config: RunConfig) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in config.flat().items()}


def _key_figures(summary: Summary, region_label: RegionLabel) -> Iterator[KeyFigure]:
    """Dice of every region, then the distance of the first."""
    if summary.model is None:
        return
    first = summary.regions[:1]
    wanted = [(region, "dice") for region in summary.regions]
    wanted += [(region, f"hd95_{summary.distance_unit}") for region in first]
    for region, score in wanted:
        value = summary.model.scores.get(f"{region}/{score}")
        if value is not None:
            yield KeyFigure(f"{region_label(region)}, {score_text.score_label(score)}", value, score)


def _verdicts(summary: Summary, region_label: RegionLabel) -> Iterator[str]:
    """One sentence for each paired comparison of the run with another method by the first region's Dice."""
    model = summary.model
    for paired in summary.paired:
        if model is None or paired.score != f"{summary.regions[0]}/dice" or model.name != paired.a:
            continue
        outcome, gap = describe_difference(paired), paired.difference
        region = region_label(summary.regions[0])
        size = f"{score_text.signed_number(gap.mean)} ({score_text.between(gap, signed=True)}, n = {gap.n})"
        yield f"{region} Dice against {paired.b}: {outcome}, {size}."


def _method_charts(summary: Summary, region_label: RegionLabel) -> Iterator[Chart]:
    for region in summary.regions:
        label = region_label(region)
        bars = [
            interval_bar(row.name, value, emphasised=row.kind == "model")
            for row in summary.rows
            if (value := row.scores.get(f"{region}/dice")) is not None
        ]
        if bars:
            means = "; ".join(
                f"{bar.label} {bar.mean:.3f}, {bar.low:.3f} to {bar.high:.3f}"
                for bar in bars
                if bar.low is not None and bar.high is not None
            )
            figure = svg(
                interval_chart(bars, axis="Dice", limits=(0, 1)),
                f"Mean Dice of the {label.lower()} with 95% intervals: {means}.",
            )
            counts = sorted({n for _, n in measured_on(summary, region)})
            n_range = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
            yield Chart(label, figure, f"Mean Dice and 95% interval, n = {n_range}; higher is better.")


def _case_charts(evaluation: Evaluation, region_label: RegionLabel) -> Iterator[Chart]:
    regions = evaluation.summary.regions
    by_region = {
        region_label(region): dice
        for region in regions
        if (dice := [case.scores[f"{region}/dice"] for case in evaluation.cases if f"{region}/dice" in case.scores])
    }
    sites = sorted({case.site for case in evaluation.cases})
    has_sites = 2 <= len(sites) <= MOST_SITES
    if by_region and not (has_sites and len(regions) == 1):  # the sites' dots are then the same cases
        figure = svg(strip_chart(by_region, axis="Dice"), f"Dice of every case. {_medians(by_region)}")
        yield Chart("Every case", figure, "One dot a case; the upright line is the median.")
    if regions and has_sites:
        score, label = f"{regions[0]}/dice", region_label(regions[0])
        by_site = {
            site: dice
            for site in sites
            if (dice := [c.scores[score] for c in evaluation.cases if c.site == site and score in c.scores])
        }
        if by_site:
            figure = svg(strip_chart(by_site, axis="Dice"), f"{label} Dice by site. {_medians(by_site)}")
            yield Chart(f"{label}, by site", figure, "One dot a case; the upright line is the site's median.")


def _medians(groups: dict[str, list[float]]) -> str:
    medians = (f"{name} {sorted(values)[len(values) // 2]:.2f} of {len(values)}" for name, values in groups.items())
    return f"Medians: {'; '.join(medians)}."


def _roc(detection: Detection | None) -> Chart | None:
    if detection is None or len(detection.roc) < 2:
        return None
    chosen = next(
        (
            (1 - row.specificity, row.sensitivity)
            for row in detection.rows
            if row.threshold == detection.chosen and row.specificity is not None and row.sensitivity is not None
        ),
        None,
    )
    area = score_text.number(detection.auroc)
    return Chart(
        "ROC curve",
        svg(
            roc_chart(detection.roc, chosen=chosen),
            f"ROC curve of abnormal slices found by the discriminator, area {area}.",
        ),
        f"Area {area} over {counted(detection.n_slices, 'slice')}, "
        f"{detection.n_abnormal} of them abnormal; 0.5 is chance.",
    )


def page_environment(*folders: str) -> Environment:
    """An environment for the templates in these folders of the package; an undefined name is an error."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("ganseg_dist", folder) for folder in folders]),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _visible(value: Any) -> Any:
    """Make the control characters of plain `str` visible; `Markup`, from figures and templates, passes unchanged."""
    return printable_lines(value) if type(value) is str else value
