"""Patients and configs of the trials of each experiment."""

import pytest

from ganseg_dist.config import override
from ganseg_dist.data.cohort import Case, Cohort, Split
from ganseg_dist.errors import ConfigError, DataError
from ganseg_dist.names import SAFE
from ganseg_dist.runs import Run
from ganseg_dist.studies.experiments.arms import ablation_trials, augmentation_trials, classifier_trials
from ganseg_dist.studies.experiments.robustness import robustness_trials
from ganseg_dist.studies.experiments.splits import fold_trials, fraction_trials, nested, transfer_trials
from ganseg_dist.systems import build_system, recipe

SPLIT = Split(tuple("abcdefghij"), ("k", "l"), ("m", "n"))
CONFIG = recipe("gan_osmosis_debug")


def cohort(tmp_path, **sites):
    cases = tuple(Case(f"{patient}-1", patient, site, {}) for patient, site in sites.items())
    return Cohort(tmp_path, "manifest", cases)


def test_nested_fractions_grow_and_keep_validation_and_test():
    smaller, larger = nested(SPLIT, 20, 0), nested(SPLIT, 50, 0)
    assert (len(smaller.train), len(larger.train)) == (2, 5)
    assert set(smaller.train) < set(larger.train) < set(SPLIT.train)
    assert nested(SPLIT, 100, 3).train == SPLIT.train
    assert {(part.validation, part.test) for part in (smaller, larger)} == {(SPLIT.validation, SPLIT.test)}
    assert any(nested(SPLIT, 20, seed).train != smaller.train for seed in range(1, 5))
    assert len(nested(SPLIT, 1, 0).train) == 1


def test_fraction_trials_combine_fractions_arms_and_seeds():
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
    ("percentages", "arms", "message"), [([0], ["real"], "--fractions 0"), ([10], ["reel"], "--arms reel")]
)
def test_fraction_trials_reject_invalid_fraction_and_arm(percentages, arms, message):
    with pytest.raises(ConfigError, match=message):
        fraction_trials(CONFIG, SPLIT, percentages=percentages, arm_names=arms, seeds=1)


def test_fold_trials_test_every_patient_once_with_all_sites(tmp_path):
    site_of = {f"p{number}": ("north", "south")[number % 2] for number in range(12)}
    trials = fold_trials(CONFIG, cohort(tmp_path, **site_of), folds=3)
    tested = [patient for trial in trials for patient in trial.split.test]
    assert sorted(tested) == sorted(site_of)
    for trial in trials:
        assert {site_of[patient] for patient in trial.split.test} == {"north", "south"}
        assert set(trial.split.train) | set(trial.split.validation) | set(trial.split.test) == set(site_of)


@pytest.mark.parametrize(("folds", "message"), [(2, "none to train on"), (5, "cannot fill")])
def test_fold_trials_reject_too_few_patients(tmp_path, folds, message):
    with pytest.raises(ConfigError, match=message):
        fold_trials(CONFIG, cohort(tmp_path, a="x", b="x", c="x", d="x"), folds=folds)


def test_transfer_trials_exclude_test_site_from_training(tmp_path):
    site_of = {f"p{number}": ("north", "south", "west")[number % 3] for number in range(18)}
    trials = transfer_trials(CONFIG, cohort(tmp_path, **site_of), arm_names=["classical", "both"])
    assert len(trials) == 6
    for trial in trials:
        assert {site_of[patient] for patient in trial.split.test} == {trial.values["site"]}
        assert trial.values["site"] not in {site_of[p] for p in (*trial.split.train, *trial.split.validation)}


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_trial_names_are_safe_file_names(name):
    trials = [
        *ablation_trials(recipe(name), SPLIT, seeds=2),
        *fraction_trials(recipe(name), SPLIT, percentages=[10, 100], arm_names=["real", "gan"], seeds=1),
    ]
    assert [trial.name for trial in trials if not SAFE.fullmatch(trial.name)] == []


def test_transfer_trials_have_distinct_safe_names(tmp_path):
    sites = ("Spital Ü", "Spital-U", "../../x", "spital u")
    site_of = {f"p{number}": sites[number % 4] for number in range(24)}
    trials = transfer_trials(CONFIG, cohort(tmp_path, **site_of), arm_names=["both"])
    assert {trial.values["site"] for trial in trials} == set(sites)
    assert {trial.name for trial in trials} >= {"without-Spital-U-both", "without-x-both"}
    assert len({trial.name.lower() for trial in trials}) == 4
    assert all(SAFE.fullmatch(trial.name) for trial in trials)


def test_robustness_trials_have_distinct_safe_names(tmp_path):
    found = robustness_trials(Run(tmp_path), [], ("t1/post", "t1 post", "flair"), seed=0)
    names = [trial.name for trial in found]
    assert names[0] == "as-they-are"
    assert "gaussian-noise-0.02" in names
    assert "without-flair" in names
    assert len(set(names)) == len(names)
    assert all(SAFE.fullmatch(name) for name in names)


def test_transfer_trials_reject_single_site(tmp_path):
    with pytest.raises(DataError, match="needs two"):
        transfer_trials(CONFIG, cohort(tmp_path, a="north", b="north", c="unknown"), arm_names=["both"])


@pytest.mark.parametrize("name", ["ganet_seg_debug", "gan_osmosis_debug"])
def test_ablation_trials_disable_one_term_per_row(name):
    trials = ablation_trials(recipe(name), SPLIT, seeds=2)
    rows = {trial.values["arm"]: trial.config for trial in trials if trial.values["seed"] == 0}
    assert len(trials) == 2 * len(rows)
    assert rows["whole"] == override(recipe(name), {"seed": 0})
    assert rows["no adversarial term"].system.adversarial_weight == 0
    assert rows["paper reading"].system.reading == "paper"
    assert rows["control, no GAN"].system.gan is False
    assert len({config.to_json() for config in rows.values()}) == len(rows)


def test_ablation_trials_build_distinct_generators():
    """Names of rows against the systems that they build."""
    seen = {"data.modalities": ["flair"], "data.regions": ["wt"]}
    trials = ablation_trials(override(recipe("gan_osmosis_debug"), seen), SPLIT, seeds=1)
    rows = {trial.values["arm"]: build_system(trial.config) for trial in trials}

    def shape(system):
        if "generator" not in system.networks:
            return None
        generator = system.networks["generator"]
        terms = set(system.stages[0].phases[-1].weights)
        return terms, generator.mask_trunk is None, generator.noise, system.shows_foreground

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
def test_ablation_trials_omit_disabled_terms_and_reject_ablated_recipe(name):
    config = recipe(name)
    rows = {trial.values["arm"] for trial in ablation_trials(config, SPLIT, seeds=1)}
    without = override(config, {"system.adversarial_weight": 0.0})
    assert rows - {trial.values["arm"] for trial in ablation_trials(without, SPLIT, seeds=1)} == {"no adversarial term"}
    for field, value in (("gan", False), ("reading", "paper")):
        with pytest.raises(ConfigError, match=rf"system\.{field}: is set as in one of the ablation's rows"):
            ablation_trials(override(config, {f"system.{field}": value}), SPLIT, seeds=1)


def test_augmentation_trials_cover_each_augmentation(tmp_path):
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


def test_augmentation_trials_require_two_classes(tmp_path):
    config = recipe("gan_detector_debug")
    cases = tuple(Case(name, name, "x", {}, class_name=name) for name in ("glioma", "none", "pituitary"))
    three = Cohort(tmp_path, "class_folder", cases)
    with pytest.raises(ConfigError, match=r"data\.classes: are glioma, none, pituitary; name two"):
        augmentation_trials(config, three, SPLIT, seeds=1)
    assert augmentation_trials(override(config, {"data.classes": ["none", "glioma"]}), three, SPLIT, seeds=1)


def test_classifier_trials_include_both_baselines():
    trials = classifier_trials(recipe("dl_gan_cnn_debug"), SPLIT, seeds=2)
    assert len({trial.name for trial in trials}) == len(trials) == 6
    assert {trial.values["arm"] for trial in trials} == trials[0].config.system.published["classifiers"].keys(), (
        "each has its published figures"
    )
    assert [(trial.config.system.gan, trial.config.system.classifier) for trial in trials[::2]] == [
        (True, "cnn"), (False, "cnn"), (False, "vgg16"),
    ]  # fmt: skip


def test_trials_of_one_system_reject_other_systems(tmp_path):
    with pytest.raises(ConfigError, match="gan_osmosis_debug: is no detector"):
        augmentation_trials(CONFIG, Cohort(tmp_path, "manifest", ()), SPLIT, seeds=1)
    with pytest.raises(ConfigError, match="gan_osmosis_debug: has no such baselines"):
        classifier_trials(CONFIG, SPLIT, seeds=1)
    given = override(recipe("dl_gan_cnn_debug"), {"system.pretrained": "weights.safetensors"})
    with pytest.raises(ConfigError, match=r"system\.pretrained: fits one"):
        classifier_trials(given, SPLIT, seeds=1)
