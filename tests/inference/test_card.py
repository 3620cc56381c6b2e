"""The model card of a run, written from its records alone."""

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Split
from ganseg_dist.data.labels import BRATS
from ganseg_dist.data.record import DataRecord
from ganseg_dist.engine.state import Epoch
from ganseg_dist.inference.card import model_card
from ganseg_dist.runs import Kept, RunRecord
from ganseg_dist.systems import recipe

DATA = {
    "root": "/data",
    "layout": "brats",
    "phantom": False,
    "synthetic": False,
    "modalities": ["t1"],
    "regions": ["wt", "tc", "et"],
    "channels": [],
    "labels": BRATS.to_json(),
    "otherwise_labelled": 0,
    "cases": [{"id": "p", "patient": "p", "site": "s", "content": "ab"}],
    "excluded": [],
}
HISTORY = [
    Epoch("detect", 0, step=0, workers=1, losses={}, scores={"accuracy": 0.6, "cross_entropy": 0.5}),
    Epoch("detect", 1, step=0, workers=1, losses={}, scores={"accuracy": 0.7, "cross_entropy": 0.9}),
]
RUN = RunRecord(name="mine", seconds=60.0, version="0.1.0", kept={"detect": Kept(epoch=0, best_of=("cross_entropy",))})


def card(data=DATA, fields=None, **changes):
    changed = {f"system.{name}": value for name, value in changes.items()} | (fields or {})
    return model_card(
        override(recipe("gan_detector_debug"), changed),
        DataRecord.model_validate(data),
        Split(("p",), (), ()),
        HISTORY,
        RUN,
    )


def test_model_card_lists_classes_or_regions():
    classes = card(fields={"data.classes": ["none", "glioma"]})
    assert "\n- Classes, in order: none, glioma\n" in classes
    assert "Regions" not in classes
    regions = card(fields={"data.regions": ["wt", "tc"]})
    assert "\n- Regions: wt, tc\n" in regions
    assert "Classes" not in regions


def test_model_card_names_mask_values():
    fields = {"data.regions": ["wt", "tc", "et"]}
    assert "\n- Values of a mask: 0 background, 1 necrotic core, 2 oedema, 4 enhancing tumour\n" in card(fields=fields)
    one = card({**DATA, "otherwise_labelled": 3}, {"data.regions": ["wt"]})
    assert "\n- Values of a mask: 0 background, 1 whole tumour; in a picture the lesion is 255\n" in one
    assert "\n- 3 of its masks use other values or names; these are those of most masks\n" in one
    sites = card({**DATA, "cases": [], "otherwise_labelled": 2}, fields)
    assert "\n- Other values or names in the masks of 2 sites: these are the canonical ones\n" in sites
    assert "Values of a mask" not in card()


def test_model_card_states_unknown_patients():
    assert "- 1 case of 1 patient; 1 patient trained" in card()
    unknown = card({**DATA, "layout": "class_folder"})
    assert "- 1 image; patients unknown; 1 trained, 0 validated, 0 held out" in unknown
    assert "One patient's images may be in training and in test" in unknown
    assert "patient trained" not in unknown
    named = {"id": "a", "patient": "b", "site": "s", "content": "cd"}
    partly = card({**DATA, "layout": "image_folder", "cases": [*DATA["cases"], named]})
    assert "- 2 images; the patients of 1 unknown" in partly


def test_model_card_scores_are_of_kept_epoch():
    assert "accuracy 0.600, cross_entropy 0.500" in card()


def test_model_card_calls_detector_without_gan_a_control():
    for augmentation in ("none", "classical"):
        assert "the control of GAN detector (no GAN), recipe" in card(augmentation=augmentation)
    assert "the control of GAN detector (no GAN), recipe" in card(gan=False)
    for augmentation in ("gan", "both"):
        assert "\nGAN detector, recipe" in card(augmentation=augmentation)


def test_model_card_escapes_line_breaks_and_html_in_names():
    """The card is rendered as Markdown wherever the model goes."""
    site, name = "north\n\n## Scores\n- Dice 0.99", "<img src=x onerror=alert(1)>\u202e"
    lines = card(
        {**DATA, "cases": [{"id": "p", "patient": "p", "site": site, "content": "ab"}]},
        {"data.classes": ["none", name]},
    )
    assert "- Cases per site: north\\n\\n## Scores\\n- Dice 0.99 1\n" in lines
    assert "- Classes, in order: none, &lt;img src=x onerror=alert(1)&gt;\\u202e\n" in lines
    assert "\n## Scores" not in lines
