import base64
import html.parser
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ganseg_dist.digests import sealed
from ganseg_dist.engine.checkpoint import FORMAT
from ganseg_dist.engine.state import Epoch, Position
from ganseg_dist.errors import ConfigError, RunError
from ganseg_dist.evaluation.results import ArmDifference
from ganseg_dist.metrics.statistics import Interval, PairedComparison
from ganseg_dist.report.page import (
    commands,
    config_fields,
    describe_difference,
    site_table,
    write_report,
)
from ganseg_dist.report.reading import Records
from ganseg_dist.systems.ganet_seg.hole_evidence import HoleEvidence
from ganseg_dist.systems.ganet_seg.section import describe_holes
from tests.report.made_runs import (
    classifier_run,
    detector_run,
    draw_sheet,
    federated_run,
    finished_run,
    just_trained_run,
    osmosis_run,
    picture_run,
    plain_unet_run,
)

MAKERS = [
    osmosis_run,
    finished_run,
    just_trained_run,
    plain_unet_run,
    picture_run,
    classifier_run,
    detector_run,
    federated_run,
]


class Elements(html.parser.HTMLParser):
    """Tags, ids and addresses of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.open = Counter(), [], [], []
        self.unnamed_pictures = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags[tag] += 1
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href", "xlink:href") if name in given]
        if (tag == "img" and not given.get("alt")) or (tag == "svg" and not given.get("aria-label")):
            self.unnamed_pictures += 1
        if tag not in ("meta", "input", "img", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__)
def page(request, tmp_path):
    return write_report(request.param(tmp_path)).read_text()


def test_report_is_well_formed_and_self_contained(page):
    elements = Elements(page)
    assert elements.open == []
    assert elements.tags["svg"] >= 2
    assert all(address.startswith(("#", "data:image/png;base64,")) for address in elements.addresses)
    assert not re.search(r"url\((?!#)|@import|<link", page)


def test_report_pictures_have_alt_text_and_ids_are_unique(page):
    elements = Elements(page)
    assert elements.unnamed_pictures == 0
    assert [name for name, times in Counter(elements.ids).items() if times > 1] == []
    assert {address[1:] for address in elements.addresses if address.startswith("#")} <= set(elements.ids)


def test_report_escapes_names(tmp_path):
    page = write_report(finished_run(tmp_path)).read_text()
    assert "Ulm-&lt;b&gt;007&lt;/b&gt;" in page
    assert "<b>007" not in page


def test_report_marks_phantom_as_synthetic(tmp_path):
    assert "Synthetic phantom, not patients" in write_report(finished_run(tmp_path)).read_text()
    assert "not patients" not in write_report(plain_unet_run(tmp_path)).read_text()


def test_report_of_finished_run_shows_scores_intervals_and_comparisons(tmp_path):
    page = write_report(finished_run(tmp_path)).read_text()
    for shown in (
        "Whole tumour Dice against FLAIR threshold: better, +0.240 (+0.210 to +0.270, n = 21).",
        "Whole tumour Dice against Plain U-Net, same schedule: no difference shown, +0.020 (−0.010 to +0.050, n = 21).",
        "0.750 to 0.850",
        "HD95, mm",
        "AUROC 0.800",
        "Enhancing tumour on T1ce",
        "The true mask is preferred to: eroded, shifted, whole foreground and empty.",
        "Preferred to the true mask, so that training is led away from it: dilated.",
        "have a cosine of +0.010 (95% −0.010 to +0.030)",
        "33% (95% 28 to 38) of the gradient on the missing ring adds to it",
        "71% (95% 66 to 76) on the surplus ring takes it away",
        "1 case left out",
    ):
        assert shown in page, shown
    assert page.count('class="outline true-outline"') == 3 * 3 + 3
    assert page.count('class="outline predicted-outline"') == 3 * 3 + 3


def test_report_notes_missing_files(tmp_path):
    fresh = write_report(just_trained_run(tmp_path)).read_text()
    assert "Not evaluated yet" not in fresh
    assert "Training has not finished" in fresh
    assert "<code>ganseg train --resume fresh</code>" in fresh
    assert "does not describe the data" in fresh
    assert "holds no config" in fresh
    bare = finished_run(tmp_path)
    for lost in ("history.json", "evaluation/test/cases.csv", "evaluation/test/gallery.npz"):
        (bare.folder / lost).unlink()
    page = write_report(bare).read_text()
    for note in ("No training curves yet", "No scores of single cases", "No pictures were kept", "No reconstructions"):
        assert note in page, note


def test_report_omits_sections_without_results(tmp_path):
    run = finished_run(tmp_path)
    whole = write_report(run).read_text()
    headings = ("Paired differences", "Healthy model", "Slice detection by the discriminator", "#test-detection")
    assert all(heading in whole for heading in headings)
    (run.evaluation("test") / "gallery.npz").unlink()
    summary = run.read("evaluation/test/summary.json")
    run.write("evaluation/test/summary.json", summary | {"paired": [], "evidence": None, "detection": None})
    page = write_report(run).read_text()
    assert not any(heading in page for heading in (*headings, "#test-healthy"))
    run.write("evaluation/test/summary.json", summary | {"evidence": None})
    page = write_report(run).read_text()
    assert "Slice detection by the discriminator" in page
    assert "Healthy model" not in page


def test_report_names_evaluate_command_without_evaluation(tmp_path):
    run = plain_unet_run(tmp_path)
    shutil.rmtree(run.folder / "evaluation")
    page = write_report(run).read_text()
    assert "Not evaluated yet: <code>ganseg evaluate plain --data DATA</code>" in page
    assert "--resume" not in page


def test_report_of_interrupted_run_names_reason_and_resume_command(tmp_path):
    run = just_trained_run(tmp_path)
    run.describe(status="interrupted", error="KeyboardInterrupt")
    page = write_report(run).read_text()
    assert "Training was interrupted (by hand, with Ctrl-C)." in page
    assert "<code>ganseg train --resume fresh</code>" in page
    assert "Not evaluated yet" not in page
    run.describe(error="RunError: disk full")
    assert "Training was interrupted (RunError: disk full)." in write_report(run).read_text()


@pytest.mark.parametrize("make", [plain_unet_run, osmosis_run])
def test_report_omits_sections_foreign_to_system(make, tmp_path):
    page = write_report(make(tmp_path)).read_text()
    for absent in ("Healthy model", "Detection", "discriminator tells", "ROC", "anomaly map"):
        assert absent not in page, absent
    assert "Healthy model" in write_report(finished_run(tmp_path)).read_text()


def test_report_shows_generated_images_beside_real_ones_and_masks(tmp_path):
    run = osmosis_run(tmp_path)
    assert "No example pictures lie beside this run" in write_report(run).read_text()
    draw_sheet(run, "joint", 40, rows=3, columns=4)
    draw_sheet(run, "segment", 200, rows=2, columns=4)
    page = write_report(run).read_text()
    assert "after step 200, in stage segment" in page
    assert page.count("<figcaption>real image</figcaption>") == 2, "the newest sheet"
    assert page.count("<figcaption>its mask</figcaption>") == 2
    assert page.count("<figcaption>generated from the mask</figcaption>") == 2
    uris = re.findall(r'href="data:image/png;base64,([^"]+)" width="64"', page)
    cells = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))))[..., 0] for uri in uris]
    assert [(cell.shape, set(cell.ravel())) for cell in cells] == [
        ((64, 64), {level}) for level in (10, 11, 13, 20, 21, 23)
    ], "first, second and last column of each row, without the titles"


def test_report_states_display_convention_of_example_sheet(tmp_path):
    run = osmosis_run(tmp_path)
    draw_sheet(run, "joint", 40, rows=1, columns=4, caption="radiological: <right> on the left")
    page = write_report(run).read_text()
    assert "in stage joint; radiological: &lt;right&gt; on the left.</p>" in page
    assert page.count('of stage joint; radiological: &lt;right&gt; on the left"') == 3
    draw_sheet(run, "segment", 50, rows=1, columns=4)
    assert "in stage segment.</p>" in write_report(run).read_text()


def test_report_rejects_gallery_without_sides_known(tmp_path):
    run = plain_unet_run(tmp_path)
    gallery = run.evaluation("validation") / "gallery.npz"
    with np.load(gallery) as arrays:
        kept = dict(arrays)
    index = [{name: value for name, value in entry.items() if name != "sides_known"}
             for entry in json.loads(str(kept["index"]))]  # fmt: skip
    np.savez(gallery, **kept | {"index": np.array(json.dumps(index))})
    with pytest.raises(RunError, match=r"gallery\.npz: cannot be read \('sides_known'\); evaluate again"):
        write_report(run)


def test_report_rejects_unknown_display_convention(tmp_path, monkeypatch):
    monkeypatch.setenv("GANSEG_DISPLAY", "upside-down")
    with pytest.raises(ConfigError, match=r"^GANSEG_DISPLAY: 'upside-down' is not a display convention"):
        write_report(plain_unet_run(tmp_path))


def test_report_omits_generated_images_without_image_generator(tmp_path):
    for make in (plain_unet_run, finished_run):
        assert "Generated images" not in write_report(make(tmp_path)).read_text()


def test_report_rejects_damaged_example_sheet(tmp_path):
    run = osmosis_run(tmp_path)
    draw_sheet(run, "joint", 40, rows=1, columns=4).write_bytes(b"no picture")
    with pytest.raises(RunError, match=r"step-0000040\.png: cannot be read"):
        write_report(run)


def test_report_has_no_interval_for_one_patient(tmp_path):
    run = plain_unet_run(tmp_path)
    summary = run.read("evaluation/validation/summary.json")
    for row in summary["rows"]:
        row["scores"] = {name: value | {"low": value["mean"], "high": value["mean"], "n": 1}
                         for name, value in row["scores"].items()}  # fmt: skip
    run.write("evaluation/validation/summary.json", summary | {"n_patients": 1})
    page = write_report(run).read_text()
    assert "21 cases of 1 patient." in page
    assert "95% –, n = 1" in page
    assert "0.800 to 0.800" not in page
    assert '<span class="interval">–</span>' in page


def test_report_counts_images_when_patients_are_unknown(tmp_path):
    run = classifier_run(tmp_path)
    assert "no patient is in two parts" in write_report(run).read_text()
    data = run.read("data.json")
    unknown = [case | {"patient": case["id"]} for case in data["cases"]]
    run.write("data.json", data | {"layout": "class_folder", "cases": unknown})
    page = write_report(run).read_text()
    for text in (
        "21 images, patients unknown",
        "60 images, patients unknown; n counts images",
        "intervals over images.",
        "one patient's images may be in two parts",
    ):
        assert text in page, text
    assert "no patient is in two parts" not in page
    assert "of 6 patients" not in page
    run.write("data.json", data | {"layout": "class_folder", "cases": unknown[:5] + data["cases"][5:]})
    assert "21 images, patients partly unknown" in write_report(run).read_text()
    run.write("data.json", data | {"layout": "brats", "cases": unknown})
    assert "patients unknown" not in write_report(run).read_text(), "a scan may be called as its patient"


def test_report_gives_distances_in_pixels_without_spacing(tmp_path):
    page = write_report(picture_run(tmp_path)).read_text()
    assert "HD95, px" in page
    assert ", mm" not in page
    assert "Foreground on colour" in page
    assert "Tumour" not in page
    assert "holes in foreground-free slices" in page
    assert "tumour-free" not in page
    assert "holes in tumour-free slices" in write_report(finished_run(tmp_path)).read_text()


def test_report_names_field_of_damaged_summary(tmp_path):
    run = finished_run(tmp_path)
    summary = run.read("evaluation/test/summary.json")
    summary["rows"][0]["n"] = "many"
    run.write("evaluation/test/summary.json", summary)
    with pytest.raises(RunError, match=r"summary\.json: rows\.0\.n"):
        write_report(run)
    (run.folder / "evaluation/test/summary.json").write_text("{")
    with pytest.raises(RunError, match=r"summary\.json: is not readable JSON"):
        write_report(run)


def test_report_rejects_damaged_gallery_and_case_table(tmp_path):
    run = finished_run(tmp_path)
    (run.folder / "evaluation/test/gallery.npz").write_bytes(b"PK no archive")
    with pytest.raises(RunError, match=r"gallery\.npz"):
        write_report(run)
    np.savez(run.folder / "evaluation/test/gallery.npz", index=np.array(json.dumps([])))
    (run.folder / "evaluation/test/cases.csv").write_text("case,patient,site,wt/dice\na,a,s,high\n")
    with pytest.raises(RunError, match=r"cases\.csv"):
        write_report(run)


@pytest.mark.parametrize(
    ("score", "mean", "differs", "message"),
    [
        ("wt/dice", 0.03, True, "better"),
        ("wt/dice", -0.03, True, "worse"),
        ("wt/hd95_mm", 3.0, True, "worse"),
        ("wt/hd95_px", -3.0, True, "better"),
        ("wt/dice", 0.03, False, "no difference shown"),
        ("wt/dice", 0.03, None, "too few patients to compare"),
    ],
)
def test_describe_difference_follows_direction_of_score(score, mean, differs, message):
    gap = Interval(mean=mean, low=mean - 0.01, high=mean + 0.01, n=9)
    assert (
        describe_difference(ArmDifference(score=score, a="one", b="other", difference=gap, differs=differs)) == message
    )


def test_report_shows_case_that_is_median_and_worst_once(tmp_path):
    run = plain_unet_run(tmp_path)
    gallery = run.evaluation("validation") / "gallery.npz"
    with np.load(gallery) as arrays:
        kept = dict(arrays)
    index = json.loads(str(kept["index"]))
    index[2] |= {"k": 1, "case": index[1]["case"], "slice": index[1]["slice"]}
    np.savez(gallery, **kept | {"index": np.array(json.dumps(index))})
    page = write_report(run).read_text()
    assert re.findall(r'class="rank">([^<]*)<', page) == ["best", "median and worst"]


def test_describe_holes_compares_generator_with_baseline():
    def description(mean, differs):
        gap = Interval(mean=mean, low=mean - 0.01, high=mean + 0.01, n=7)
        less = PairedComparison(difference=gap, differs=differs)
        return describe_holes(HoleEvidence(gap, gap, less, gap, n_holes=9, psnr=20.0, ssim=0.5))

    assert "the generator is better." in description(-0.05, True)
    assert "the generator is worse." in description(0.05, True)
    assert "no difference shown." in description(-0.05, False)
    assert "too few patients to compare." in description(-0.05, None)


def test_site_table_counts_cases_by_site_and_part(tmp_path):
    records = Records.of(finished_run(tmp_path))
    assert site_table(records) == [
        ("Bergen", Counter(train=9)),
        ("Leuven", Counter(train=4, validation=3)),
        ("Ulm", Counter(test=5)),
    ]


def test_config_fields_compare_with_recipe(tmp_path):
    fields = {field.name: field for field in config_fields(Records.of(plain_unet_run(tmp_path)).config)}
    assert (fields["system.gan"].value, fields["system.gan"].recipe_value) == ("false", "true")
    assert fields["train.epochs"].recipe_value is None


def test_commands_list_steps_to_reproduce_run(tmp_path):
    assert commands(Records.of(plain_unet_run(tmp_path))) == [
        "git checkout 93397b5c0ffe",
        "ganseg train ganet_seg_small --data /data/cohort --run-name plain",
        "ganseg calibrate plain --data /data/cohort",
        "ganseg evaluate plain --data /data/cohort --part validation",
    ]


QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--dump-dom",
]

PROBE = """<script>
let errors = 0;
addEventListener("error", () => { errors += 1; });
addEventListener("securitypolicyviolation", () => { errors += 1; });
addEventListener("load", () => {
  const record = (name, value) => document.documentElement.setAttribute("data-" + name, value);
  const visible = [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().width > 50);
  record("shown", visible.length);
  record("wider", document.documentElement.scrollWidth - document.documentElement.clientWidth);
  const column = 3, table = document.querySelector("table.sortable");
  const shown = () => [...table.tBodies[0].rows].map(row => row.cells[column].textContent).join(" ");
  if (table) {
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    button.click(); record("rising", shown());
    button.click(); record("falling", shown());
    const box = document.querySelector(".show-true"), line = document.querySelector(".true-outline");
    if (box) { box.click(); record("outline", getComputedStyle(line).display); }
  }
  record("errors", errors);
});
</script>"""


@pytest.mark.parametrize("width", [pytest.param(500, marks=pytest.mark.slow), 1200])
@pytest.mark.parametrize("make", [finished_run, just_trained_run, classifier_run, federated_run])
def test_report_renders_in_browser_without_errors(make, width, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: the page is not tried in a browser")
    path = write_report(make(tmp_path))
    text = path.read_text()
    path.write_text(text.replace("</head>", PROBE + "</head>"))
    result = browser_attributes(chromium, path, width, tmp_path)
    assert result["errors"] == "0"
    assert int(result["shown"]) == Elements(text).tags["svg"]
    assert result["wider"] == "0", "the page must not scroll sideways"
    if make is finished_run:
        rising = result["rising"].split()
        assert rising == sorted(rising)
        assert len(set(rising)) > 10
        assert result["falling"].split() == rising[::-1]
        assert result["outline"] == "none"


def browser_attributes(chromium: str, path: Path, width: int, scratch: Path) -> dict[str, str]:
    """Attributes that the probe wrote on the root element."""
    profile = f"--user-data-dir={scratch / 'profile'}"
    command = [chromium, *QUIET, profile, f"--window-size={width},900", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    root = re.search(r"<html[^>]*>", done.stdout)
    assert root is not None, done.stderr
    return dict(re.findall(r'data-(\w+)="([^"]*)"', root.group()))


def test_report_of_unfinished_run_shows_epochs_of_newest_checkpoint(tmp_path):
    run = just_trained_run(tmp_path)
    (run.folder / "history.json").rename(tmp_path / "history.aside.json")
    assert "No training curves yet" in write_report(run).read_text()
    whole = run.checkpoints / "step-000000003-stage-0"
    whole.mkdir(parents=True)
    history = json.loads((tmp_path / "history.aside.json").read_text())
    described = sealed({"format": FORMAT, "position": asdict(Position(history=[Epoch(**epoch) for epoch in history]))})
    (whole / "state.json").write_text(json.dumps(described))
    half_written = run.checkpoints / "step-000000006-stage-0"
    half_written.mkdir(parents=True)
    (half_written / "state.json").write_text('{"position": {')
    assert "No training curves yet" not in write_report(run).read_text()
