import csv
import json
import re

import pytest

from ganseg_dist.config import override
from ganseg_dist.errors import RunError
from ganseg_dist.evaluation.results import ImageRow
from ganseg_dist.report.classification import class_view, confusion_rows, mistakes
from ganseg_dist.report.page import commands, write_report
from ganseg_dist.report.reading import Records
from tests.report.made_runs import classifier_run, detector_run


def view_of(run):
    records = Records.of(run)
    (found,) = records.classifications
    return class_view(found, records.config)


def image(case, truth, predicted, sure):
    return ImageRow(case, case, "s", 0, truth, predicted, (1 - sure, sure))


def test_mistakes_are_sorted_and_exclude_correct_and_unknown_images():
    images = [
        image("right", "b", "b", 0.99),
        image("unsure", "a", "b", 0.6),
        image("unknown", None, "b", 0.9),
        image("sure", "a", "b", 0.8),
        image("as sure", "a", "b", 0.8),
    ]
    assert [(each.image.case, each.of_predicted) for each in mistakes(images, ("a", "b"))] == [
        ("as sure", 0.8),
        ("sure", 0.8),
        ("unsure", 0.6),
    ]


def test_confusion_rows_are_normalized_by_true_class(tmp_path):
    summary = Records.of(classifier_run(tmp_path)).classifications[0].summary
    rows = confusion_rows(summary)
    assert [row.n_images for row in rows] == [20, 16, 24, 0]
    for row in rows[:3]:
        assert sum(cell.share for cell in row.cells) == pytest.approx(1)
        assert [cell.predicted for cell in row.cells if cell.right] == [row.truth]
    assert rows[0].cells[0].share == summary.scores.confusion[0][0] / 20
    assert [cell.share for cell in rows[3].cells] == [None] * 4


def test_report_of_classifier_shows_scores(tmp_path):
    run = classifier_run(tmp_path)
    page, view = write_report(run).read_text(), view_of(run)
    assert [key.name for key in view["key_scores"]] == ["Accuracy", "Balanced accuracy", "Macro F1"]
    scores = view["summary"].scores
    for value in (scores.accuracy, scores.expected_calibration_error, scores.classes["glioma"].precision):
        assert value.low < value.high
        assert f"{value.mean:.3f}" in page
        assert f"{value.low:.3f} to {value.high:.3f}" in page
    for shown in ("60 images of 6 patients", "accuracy of 0.400", "k = 3, chosen", "Cross-entropy", "Dotted: epoch 3"):
        assert shown in page, shown
    assert "no &lt;b&gt;tumour&lt;/b&gt;" in page
    assert "<b>tumour" not in page
    assert page.count('class="right"') == 4
    assert page.count("--share:") == 16
    assert len(view["mistakes"]) > 10
    assert f"The 10 worst of {len(view['mistakes'])} images" in page
    assert "AUROC" not in page
    assert "Dice" not in page
    assert commands(Records.of(run))[-1] == "ganseg evaluate classifier --data /data/cohort"


def test_report_of_detector_shows_auroc_and_operating_point(tmp_path):
    run = detector_run(tmp_path)
    page, view = write_report(run).read_text(), view_of(run)
    assert [key.name for key in view["key_scores"]][3:] == ["AUROC", "Sensitivity at 90% specificity"]
    point = view["summary"].operating_point
    assert point.tp + point.fn == 20
    assert f"of lesion {point.tp} found and {point.fn} missed" in view["operating_point"]
    assert f"n = {point.sensitivity.n})" in view["operating_point"]
    assert "on 3 validation patients" in view["operating_point"]
    assert "for finding lesion; the sensitivity's threshold was chosen on validation" in page
    assert "3 images of unknown class not scored" in page
    assert "Number of clusters" not in page


def test_class_view_plots_filled_calibration_bins_only(tmp_path):
    view = view_of(classifier_run(tmp_path))
    filled = [each for each in view["summary"].scores.calibration if each.n_images]
    assert 1 < len(filled) < len(view["summary"].scores.calibration)
    assert len(re.findall(r" of \d+ image", view["calibration"].figure)) == len(filled)
    assert f"ECE {view['summary'].scores.expected_calibration_error.mean:.3f}" in view["calibration"].figure


def test_report_of_classifier_notes_missing_results(tmp_path):
    run = detector_run(tmp_path)
    summary = run.read("evaluation/test/summary.json")
    run.write("evaluation/test/summary.json", summary | {"operating_point": None})
    (run.evaluation("test") / "images.csv").unlink()
    page = write_report(run).read_text()
    assert "No operating point" in page
    assert "No probabilities of single images were kept" in page
    (run.evaluation("test") / "summary.json").unlink()
    assert "Not evaluated yet: <code>ganseg evaluate detector" in write_report(run).read_text()


def test_report_rejects_damaged_classifier_results(tmp_path):
    run = classifier_run(tmp_path)
    file = run.evaluation("test") / "images.csv"
    with file.open() as stream:
        first, *rest = csv.reader(stream)
    with file.open("w") as stream:
        csv.writer(stream).writerows([first, [*rest[0][:5], "vessel", *rest[0][6:]]])
    with pytest.raises(RunError, match=r"images\.csv: .*vessel"):
        write_report(run)
    summary = run.read("evaluation/test/summary.json")
    run.write("evaluation/test/summary.json", summary | {"classes": ["glioma", "meningioma"]})
    with pytest.raises(RunError, match=r"summary\.json: .*differ in their classes"):
        write_report(run)
    del summary["scores"]["accuracy"]
    run.write("evaluation/test/summary.json", summary)
    with pytest.raises(RunError, match=r"summary\.json: scores\.accuracy"):
        write_report(run)


@pytest.mark.parametrize(("augmentation", "control"), [("classical", True), ("none", True), ("both", False)])
def test_report_marks_detector_without_gan_as_control(tmp_path, augmentation, control):
    run = detector_run(tmp_path)
    run.write("config.json", json.loads(override(run.config(), {"system.augmentation": augmentation}).to_json()))
    assert ("control, no GAN" in write_report(run).read_text()) == control
