"""Which patients and configs an experiment's trials have."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Case, Cohort, Split
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.names import SAFE
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.arms import ablation_trials, augmentation_trials, classifier_trials
from ganseg_dist.studies.experiments.folds import fold_trials
from ganseg_dist.studies.experiments.fractions import fraction_trials, nested
from ganseg_dist.studies.experiments.robustness import robustness_trials
from ganseg_dist.studies.experiments.transfer import transfer_trials
from ganseg_dist.systems import build_system, recipe

SPLIT = Split(tuple("abcdefghij"), ("k", "l"), ("m", "n"))
CONFIG = recipe("gan_osmosis_debug")


def cohort(tmp_path, **homes):
    cases = tuple(Case(f"{patient}-1", patient, site, {}) for patient, site in homes.items())
    return Cohort(tmp_path, "manifest", cases)


def test_fractions_are_nested_and_never_touch_the_test():
    smaller, larger = nested(SPLIT, 20, 0), nested(SPLIT, 50, 0)
    assert (len(smaller.train), len(larger.train)) == (2, 5)
    assert set(smaller.train) < set(larger.train) < set(SPLIT.train)
    assert nested(SPLIT, 100, 3).train == SPLIT.train
    assert {(part.validation, part.test) for part in (smaller, larger)} == {(SPLIT.validation, SPLIT.test)}
    assert any(nested(SPLIT, 20, seed).train != smaller.train for seed in range(1, 5))
    assert len(nested(SPLIT, 1, 0).train) == 1


def test_a_trial_for_each_fraction_arm_and_seed():
    trials = fraction_trials(CONFIG, SPLIT, percentages=[100, 10], arm_names=["real", "gan"], seeds=2)
    assert len({trial.name for trial in trials}) == len(trials) == 8
    assert [trial.values["percentage"] for trial in trials][:4] == [10] * 4
    real, gan = trials[0].config, trials[1].config
    assert (real.system.gan, gan.system.gan) == (False, True)
    assert real.data.augment == gan.data.augment
    assert real.data.augment.flip == real.data.augment.scale == 0
    assert trials[0].split == trials[1].split, "arms are compared on the same patients"
    assert {trial.config.seed for trial in trials} == {0, 1}


@pytest.mark.parametrize(
    ("percentages", "arms", "said"), [([0], ["real"], "--fractions 0"), ([10], ["reel"], "--arms reel")]
)
def test_what_is_no_fraction_or_arm_is_refused(percentages, arms, said):
    with pytest.raises(ConfigError, match=said):
        fraction_trials(CONFIG, SPLIT, percentages=percentages, arm_names=arms, seeds=1)


def test_every_patient_is_tested_once_and_sites_are_spread(tmp_path):
    homes = {f"p{number}": ("north", "south")[number % 2] for number in range(12)}
    trials = fold_trials(CONFIG, cohort(tmp_path, **homes), folds=3)
    tested = [patient for trial in trials for patient in trial.split.test]
    assert sorted(tested) == sorted(homes)
    for trial in trials:
        assert {homes[patient] for patient in trial.split.test} == {"north", "south"}
        assert set(trial.split.train) | set(trial.split.validation) | set(trial.split.test) == set(homes)


@pytest.mark.parametrize(("folds", "said"), [(2, "none to train on"), (5, "cannot fill")])
def test_fewer_patients_than_folds(tmp_path, folds, said):
    with pytest.raises(ConfigError, match=said):
        fold_trials(CONFIG, cohort(tmp_path, a="x", b="x", c="x", d="x"), folds=folds)


def test_a_left_out_hospital_is_seen_by_nobody(tmp_path):
    homes = {f"p{number}": ("north", "south", "west")[number % 3] for number in range(18)}
    trials = transfer_trials(CONFIG, cohort(tmp_path, **homes), arm_names=["classical", "both"])
    assert len(trials) == 6
    for trial in trials:
        assert {homes[patient] for patient in trial.split.test} == {trial.values["site"]}
        assert trial.values["site"] not in {homes[p] for p in (*trial.split.train, *trial.split.validation)}


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_trials_are_called_as_files_can_be(name):
    trials = [
        *ablation_trials(recipe(name), SPLIT, seeds=2),
        *fraction_trials(recipe(name), SPLIT, percentages=[10, 100], arm_names=["real", "gan"], seeds=1),
    ]
    assert [trial.name for trial in trials if not SAFE.fullmatch(trial.name)] == []


def test_hospitals_of_any_name_give_trials_of_different_names_that_are_shown_as_they_are(tmp_path):
    sites = ("Spital Ü", "Spital-U", "../../x", "spital u")
    homes = {f"p{number}": sites[number % 4] for number in range(24)}
    trials = transfer_trials(CONFIG, cohort(tmp_path, **homes), arm_names=["both"])
    assert {trial.values["site"] for trial in trials} == set(sites)
    assert {trial.name for trial in trials} >= {"without-Spital-U-both", "without-x-both"}
    assert len({trial.name.lower() for trial in trials}) == 4
    assert all(SAFE.fullmatch(trial.name) for trial in trials)


def test_modalities_of_any_name_give_robustness_trials_of_different_names(tmp_path):
    found = robustness_trials(Run(tmp_path), [], ("t1/post", "t1 post", "flair"), seed=0)
    names = [trial.name for trial in found]
    assert names[0] == "as-they-are"
    assert "gaussian-noise-0.02" in names
    assert "without-flair" in names
    assert len(set(names)) == len(names)
    assert all(SAFE.fullmatch(name) for name in names)


def test_one_hospital_cannot_be_left_out(tmp_path):
    with pytest.raises(DataError, match="needs two"):
        transfer_trials(CONFIG, cohort(tmp_path, a="north", b="north", c="unknown"), arm_names=["both"])


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_each_term_is_off_in_one_row(name):
    trials = ablation_trials(recipe(name), SPLIT, seeds=2)
    rows = {trial.values["arm"]: trial.config for trial in trials if trial.values["seed"] == 0}
    assert len(trials) == 2 * len(rows)
    assert rows["whole"] == override(recipe(name), {"seed": 0})
    assert rows["no adversarial term"].system.adversarial_weight == 0
    assert rows["paper reading"].system.reading == "paper"
    assert rows["control, no GAN"].system.gan is False
    assert len({config.to_json() for config in rows.values()}) == len(rows)


def test_each_row_builds_another_painter():
    """What a row's name says, read off the system that it trains."""
    seen = {"data.modalities": ["flair"], "data.regions": ["wt"]}
    trials = ablation_trials(override(recipe("gan_osmosis_debug"), seen), SPLIT, seeds=1)
    rows = {trial.values["arm"]: build_system(trial.config) for trial in trials}

    def shape(system):
        if "generator" not in system.networks:
            return None
        painter = system.networks["generator"]
        terms = set(system.stages[0].phases[-1].weights)
        return terms, painter.mask_trunk is None, painter.noise, system.shows_foreground

    every = {"segmentation", "adversarial", "reconstruction"}
    assert {row: shape(system) for row, system in rows.items()} == {
        "whole": (every, True, "dropout", True),
        "no segmentation term": (every - {"segmentation"}, True, "dropout", True),
        "no adversarial term": (every - {"adversarial"}, True, "dropout", True),
        "no reconstruction term": (every - {"reconstruction"}, True, "dropout", True),
        "two networks": (every, False, "dropout", True),
        "mask alone": (every, True, "dropout", False),
        "paper reading": (every, True, "vector", False),
        "control, no GAN": None,
    }


@pytest.mark.parametrize("name", ["ganet_seg", "ganet_seg_small", "gan_osmosis", "gan_osmosis_small"])
def test_what_is_off_already_has_no_row_and_the_whole_is_asked_for(name):
    config = recipe(name)
    rows = {trial.values["arm"] for trial in ablation_trials(config, SPLIT, seeds=1)}
    without = override(config, {"system.adversarial_weight": 0.0})
    assert rows - {trial.values["arm"] for trial in ablation_trials(without, SPLIT, seeds=1)} == {"no adversarial term"}
    for field, value in (("gan", False), ("reading", "paper")):
        with pytest.raises(ConfigError, match=rf"system\.{field}: is set to one of the ablation's own rows"):
            ablation_trials(override(config, {f"system.{field}": value}), SPLIT, seeds=1)


def test_a_detector_learns_from_each_kind_of_augmentation(tmp_path):
    config = recipe("gan_detector_debug")
    trials = augmentation_trials(config, Cohort(tmp_path, "manifest", ()), SPLIT, seeds=2)
    assert [trial.values["arm"] for trial in trials if trial.values["seed"] == 0] == [
        "none", "classical", "gan", "both",
    ]  # fmt: skip
    assert len({trial.name for trial in trials}) == len(trials) == 8
    for trial in trials:
        assert trial.config.system.augmentation == trial.values["arm"]
        assert trial.config.seed == trial.values["seed"]
        assert trial.split == SPLIT
    synthesising = {trial.values["arm"] for trial in trials if trial.config.system.synthesises}
    assert synthesising == {"gan", "both"}


def test_a_detector_finds_one_class(tmp_path):
    config = recipe("gan_detector_debug")
    cases = tuple(Case(name, name, "x", {}, class_name=name) for name in ("glioma", "none", "pituitary"))
    three = Cohort(tmp_path, "class_folder", cases)
    with pytest.raises(ConfigError, match=r"data\.classes: are glioma, none, pituitary; name two"):
        augmentation_trials(config, three, SPLIT, seeds=1)
    assert augmentation_trials(override(config, {"data.classes": ["none", "glioma"]}), three, SPLIT, seeds=1)


def test_the_classifier_stands_beside_both_its_baselines():
    trials = classifier_trials(recipe("dl_gan_cnn_debug"), SPLIT, seeds=2)
    assert len({trial.name for trial in trials}) == len(trials) == 6
    assert {trial.values["arm"] for trial in trials} == trials[0].config.system.published["classifiers"].keys(), (
        "each has its published figures"
    )
    assert [(trial.config.system.gan, trial.config.system.classifier) for trial in trials[::2]] == [
        (True, "cnn"), (False, "cnn"), (False, "vgg16"),
    ]  # fmt: skip


def test_experiments_of_one_system_refuse_the_others(tmp_path):
    with pytest.raises(ConfigError, match="gan_osmosis_debug: is no detector"):
        augmentation_trials(CONFIG, Cohort(tmp_path, "manifest", ()), SPLIT, seeds=1)
    with pytest.raises(ConfigError, match="gan_osmosis_debug: has no such baselines"):
        classifier_trials(CONFIG, SPLIT, seeds=1)
    given = override(recipe("dl_gan_cnn_debug"), {"system.pretrained": "weights.safetensors"})
    with pytest.raises(ConfigError, match=r"system\.pretrained: fits one"):
        classifier_trials(given, SPLIT, seeds=1)
