import json
import math
import os

import numpy as np
import pytest
from flwr.supercore.differential_privacy import compute_stdv

from ganseg_dist.config import override
from ganseg_dist.config.privacy import PrivacyConfig, PrivacyDemand
from ganseg_dist.digests import read_sealed
from ganseg_dist.errors import ConfigError, FederationError
from ganseg_dist.federation.accountant import epsilon_of
from ganseg_dist.federation.privacy import (
    Releases,
    Terms,
    check_privacy_demand,
    clipped,
    private_mean,
    private_update,
    released_rounds,
    squared_mu,
    validate_privacy,
    withholds_scores,
)
from ganseg_dist.systems import recipe

SENT = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([[3.0]], np.float32)}
SHARES = {"north": 0.5, "south": 0.3, "west": 0.2}


def terms(**changes):
    return Terms(
        **{"where": "server", "clip_norm": 1.0, "noise_multiplier": 1.0, "delta": 1e-5, "epsilon": None, **changes}
    )


def moved(*change):
    """SENT, moved by (3,) numbers."""
    return {"a": SENT["a"] + np.float32(change[:2]), "b": SENT["b"] + np.float32(change[2])}


def zero_noise(count):
    """Random bytes that give noise of 0, up to 1e-16 deviations."""
    return b"\xff" * count


def seeded_bytes(seed):
    """Reproducible random bytes."""
    return np.random.default_rng(seed).bytes


def flat(weights):
    return np.concatenate([weights["a"], weights["b"].ravel()])


# Clipping


def test_clipped_scales_update_as_one_vector():
    change = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    scaled = clipped(change, 1.0)
    assert scaled["a"].tolist() == pytest.approx([0.6, 0.0])
    assert scaled["b"].tolist() == [[pytest.approx(0.8)]]


def test_clipped_keeps_update_below_norm():
    small = {"a": np.array([0.3, -0.4])}
    assert clipped(small, 1.0)["a"].tolist() == [0.3, -0.4]
    assert clipped({"a": np.zeros(2)}, 1.0)["a"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clipped_zeroes_non_finite_update(bad):
    assert clipped({"a": np.array([1.0, bad]), "b": np.ones(3)}, 1.0)["b"].tolist() == [0.0, 0.0, 0.0]


def test_private_mean_does_not_overflow():
    largest = np.full(4, np.finfo(np.float32).max, np.float32)
    weights = private_mean({"a": np.zeros(4, np.float32)}, {"s": {"a": largest}}, {"s": 1.0}, terms(), zero_noise)
    assert weights["a"] == pytest.approx([0.5] * 4)


# The mean


def test_private_mean_weights_clipped_changes_by_fixed_shares():
    """0.5 (0, 0, 0.4) + 0.3 (0, 1, 0), clipped from (0, 5, 0); west has not answered, and its share is lost."""
    mean = private_mean(SENT, {"south": moved(0, 5, 0), "north": moved(0, 0, 0.4)}, SHARES, terms(), zero_noise)
    assert flat(mean) == pytest.approx([1.0, 2.3, 3.2])
    assert mean["b"].shape == (1, 1)
    assert mean["b"].dtype == np.float32


def test_private_mean_ignores_site_without_share():
    mean = private_mean(SENT, {"late": moved(9, 9, 9)}, SHARES, terms(), zero_noise)
    assert flat(mean) == pytest.approx([1, 2, 3])


def test_private_mean_does_not_depend_on_order():
    rng = np.random.default_rng(0)
    answers = {site: moved(*rng.normal(size=3)) for site in SHARES}
    backwards = dict(reversed(answers.items()))
    one, other = (private_mean(SENT, updates, SHARES, terms(), zero_noise) for updates in (answers, backwards))
    assert flat(one).tobytes() == flat(other).tobytes()


@pytest.mark.parametrize("absent", SHARES)
@pytest.mark.parametrize("kind", ["outlier", "not finite"])
def test_private_mean_sensitivity_is_share_times_clip_norm(absent, kind):
    """Sensitivity to replacing one site's update by no change."""
    rng = np.random.default_rng(1)
    answers = {site: moved(*rng.normal(size=3) * 10) for site in SHARES}
    answers[absent] = moved(1e30, -1e30, math.nan if kind == "not finite" else 1e30)
    without = {site: updates for site, updates in answers.items() if site != absent}
    one, other = (
        flat(private_mean(SENT, updates, SHARES, terms(clip_norm=0.5), zero_noise)) for updates in (answers, without)
    )
    bound = 0.5 * SHARES[absent]
    assert np.linalg.norm(one - other) <= bound + 1e-6
    if kind == "outlier":
        assert np.linalg.norm(one - other) == pytest.approx(bound, rel=1e-5), "and it can be as much"


def test_private_mean_noise_scales_with_largest_share():
    """z S p_max = 2 * 0.1 * 0.5 = 0.1; of 20000 values the sample deviation is within 3 per cent of it."""
    sent = {"a": np.zeros((100, 200), np.float32)}
    noise = private_mean(sent, {}, SHARES, terms(noise_multiplier=2.0, clip_norm=0.1), seeded_bytes(0))["a"]
    assert noise.std() == pytest.approx(0.1, rel=0.03)
    assert abs(noise.mean()) < 0.1 * 5 / math.sqrt(20000)


def test_private_mean_noise_does_not_follow_seed():
    np.random.seed(0)  # noqa: NPY002
    first = flat(private_mean(SENT, {}, SHARES, terms()))
    np.random.seed(0)  # noqa: NPY002
    assert (flat(private_mean(SENT, {}, SHARES, terms())) != first).all()


# Noise at the sites


def test_private_update_adds_noise_of_clip_norm():
    """z S = 0.2 around the clipped change, whose norm of 1 is 0.01 in each of 10000 values."""
    sent = {"a": np.zeros(10000, np.float32)}
    noised = private_update(
        sent, {"a": np.ones(10000, np.float32)}, terms(where="site", noise_multiplier=0.2), seeded_bytes(0)
    )["a"]
    assert noised.std() == pytest.approx(0.2, rel=0.03)
    assert noised.mean() == pytest.approx(0.01, abs=0.2 * 5 / 100)


def test_private_update_omits_frozen_tensors():
    result = private_update(
        {**SENT, "frozen": np.ones(2, np.float32)}, moved(0, 0, 0.5), terms(where="site"), zero_noise
    )
    assert result.keys() == SENT.keys()
    assert flat(result) == pytest.approx([1, 2, 3.5])


def test_private_mean_adds_no_noise_to_noised_updates():
    noised = {"south": private_update(SENT, moved(0, 5, 0), terms(where="site"), zero_noise)}
    mean = private_mean(SENT, noised, SHARES, terms(where="site"), seeded_bytes(0))
    assert flat(mean) == pytest.approx([1, 2.3, 3])


def test_private_mean_bounds_noised_updates_without_clipping_honest_noise():
    size, site_terms = 400, terms(where="site", noise_multiplier=3.0, clip_norm=0.5)
    sent = {"a": np.zeros(size, np.float32)}
    honest = private_update(sent, {"a": np.full(size, 9.0, np.float32)}, site_terms, seeded_bytes(2))
    mean = private_mean(sent, {"north": honest}, SHARES, site_terms)["a"]
    assert mean == pytest.approx(0.5 * honest["a"], rel=1e-6)
    bad = private_mean(sent, {"north": {"a": np.full(size, 1e9, np.float32)}}, SHARES, site_terms)["a"]
    assert np.linalg.norm(bad) == pytest.approx(0.5 * 0.5 * (1 + 3 * (math.sqrt(size) + 6)), rel=1e-5)


# What unequal weights cost


def test_epsilon_of_unequal_weights_exceeds_flower_wrapper():
    """Flower's wrappers add z S / n to a mean weighted by examples, to which a site of share p adds S p: what protects
    it is z / (n p). With half of all examples at one of four sites that is half of z, and four times the rounds.
    """
    z, clip, sites, share, rounds = 4.0, 1.0, 4, 0.5, 10
    added = compute_stdv(z, clip, sites)
    protects = added / (clip * share)
    assert protects == pytest.approx(z / (sites * share)) == pytest.approx(2.0)
    nominal, spent = epsilon_of(z, rounds, 1e-5), epsilon_of(protects, rounds, 1e-5)
    assert spent == pytest.approx(epsilon_of(z, 4 * rounds, 1e-5))
    assert spent > 2 * nominal
    sent = {"a": np.zeros(40000, np.float32)}
    ours = private_mean(
        sent,
        {},
        {"large": share, "a": 0.2, "b": 0.2, "c": 0.1},
        terms(noise_multiplier=z, clip_norm=clip),
        seeded_bytes(3),
    )
    assert ours["a"].std() == pytest.approx(2 * added, rel=0.03)


# Terms and validation


def with_privacy(**fields):
    return override(
        recipe("ganet_seg_debug"), {f"federation.{name.replace('__', '.')}": of for name, of in fields.items()}
    )


def test_privacy_is_off_by_default():
    assert not recipe("ganet_seg_debug").federation.privacy.on
    validate_privacy(with_privacy(strategy="krum", encoding="topk"), 10)
    assert PrivacyConfig(epsilon=1.0).on
    assert PrivacyConfig(noise_multiplier=1.0).on


def test_terms_derive_noise_from_epsilon():
    chosen = Terms.of(PrivacyConfig(epsilon=8.0), 20)
    assert chosen.spent(20) == pytest.approx(8.0)
    assert chosen.spent(20) <= 8.0 < chosen.spent(21)
    validate_privacy(with_privacy(privacy__epsilon=8.0), 20)


def test_terms_use_configured_noise_multiplier():
    assert Terms.of(PrivacyConfig(epsilon=8.0, noise_multiplier=5.0), 20).noise_multiplier == 5.0


@pytest.mark.parametrize("strategy", ["fedmedian", "trimmed", "krum"])
def test_validate_privacy_rejects_strategies_that_inspect_single_updates(strategy):
    with pytest.raises(ConfigError, match=rf"federation.strategy: {strategy} .* take one of fedavg, fedprox"):
        validate_privacy(with_privacy(strategy=strategy, privacy__epsilon=8.0), 3)


def test_validate_privacy_at_site_requires_epsilon_and_rejects_topk():
    with pytest.raises(ConfigError, match=r"^federation.privacy.epsilon: .* set one$"):
        validate_privacy(with_privacy(privacy__noise_multiplier=1.0, privacy__where="site"), 3)
    with pytest.raises(ConfigError, match=r"^federation.encoding: topk"):
        validate_privacy(with_privacy(privacy__epsilon=1.0, privacy__where="site", encoding="topk"), 3)
    validate_privacy(with_privacy(privacy__epsilon=1.0, encoding="topk"), 3)


def test_validate_privacy_suggests_rounds_and_noise_beyond_budget():
    config = with_privacy(privacy__epsilon=5.0, privacy__noise_multiplier=3.0)
    with pytest.raises(ConfigError) as caught:
        validate_privacy(config, 30)
    message = str(caught.value)
    assert "\n" not in message
    rounds = int(message.partition("federation.rounds to ")[2].partition(",")[0])
    noise = float(message.partition("raise noise_multiplier to ")[2].partition(",")[0])
    validate_privacy(config, rounds)
    validate_privacy(with_privacy(privacy__epsilon=5.0, privacy__noise_multiplier=noise), 30)
    with pytest.raises(ConfigError):
        validate_privacy(config, rounds + 1)


def test_validate_privacy_suggests_noise_only_when_no_round_fits():
    with pytest.raises(ConfigError, match=r"more than 0.1; raise noise_multiplier to"):
        validate_privacy(with_privacy(privacy__epsilon=0.1, privacy__noise_multiplier=0.5), 1)


# Demands of a site


def test_check_privacy_demand_rejects_weaker_offer():
    demanded = PrivacyDemand(epsilon=4.0)
    check_privacy_demand(demanded, PrivacyConfig(epsilon=4.0, where="site"), 30)
    for offered, message in (
        (PrivacyConfig(), "is off"),
        (PrivacyConfig(epsilon=1.0), "where: is server"),
        (PrivacyConfig(epsilon=4.1, where="site"), "epsilon to 4.1 at 1e-05"),
        (PrivacyConfig(epsilon=4.0, delta=1e-3, where="site"), "its policy permits 4"),
    ):
        with pytest.raises(FederationError, match=message):
            check_privacy_demand(demanded, offered, 30)
    check_privacy_demand(PrivacyDemand(epsilon=4.0, where="server"), PrivacyConfig(epsilon=4.0), 30)


def test_check_privacy_demand_counts_earlier_federations(tmp_path):
    """Three rounds of z = 2 before and one of z = 1 now are as seven of z = 2."""
    earlier = Releases.open(tmp_path / "first", terms(where="site", noise_multiplier=2.0, epsilon=100.0))
    for round in (1, 2, 3):
        earlier.once(round, lambda: SENT)
    spent = squared_mu(released_rounds(tmp_path / "first").values())
    assert released_rounds(tmp_path / "none") == {}
    assert spent == pytest.approx(3 / 4)
    together = epsilon_of(2.0, 7, 1e-5)
    now = PrivacyConfig(epsilon=100.0, noise_multiplier=1.0, where="site")
    check_privacy_demand(PrivacyDemand(epsilon=together * 1.001), now, 1, spent)
    with pytest.raises(FederationError, match="would raise this site's epsilon"):
        check_privacy_demand(PrivacyDemand(epsilon=together * 0.999), now, 1, spent)


# Releases


def moved_weights(*change):
    return lambda: moved(*change)


def test_releases_once_returns_first_release_of_round(tmp_path):
    releases = Releases.open(tmp_path, terms())
    first = releases.once(1, lambda: private_mean(SENT, {}, SHARES, releases.terms))
    assert flat(releases.once(1, moved_weights(9, 9, 9))).tobytes() == flat(first).tobytes()
    again = Releases.open(tmp_path, terms())
    assert flat(again.once(1, moved_weights(9, 9, 9))).tobytes() == flat(first).tobytes()
    assert again.rounds == [1], "and it counts once"


def test_releases_once_repeats_interrupted_release(tmp_path):
    releases = Releases.open(tmp_path, terms())

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        releases.once(1, killed)
    again = Releases.open(tmp_path, terms())
    assert again.rounds == []
    assert flat(again.once(1, moved_weights(1, 0, 0))) == pytest.approx([2, 2, 3])


def test_releases_once_repeats_release_missing_in_ledger(tmp_path, monkeypatch):
    """The process dies between the two writes, before anything is sent."""
    releases = Releases.open(tmp_path, terms())

    def killed(file, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ganseg_dist.federation.privacy.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            releases.once(1, moved_weights(1, 0, 0))
    again = Releases.open(tmp_path, terms())
    assert flat(again.once(1, moved_weights(2, 0, 0))) == pytest.approx([3, 2, 3])


@pytest.mark.parametrize("place", ["removed", "link"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_releases_raise_for_missing_ledger(tmp_path, rounds, place):
    releases = Releases.open(tmp_path, terms())
    for round in range(1, rounds + 1):
        releases.once(round, moved_weights(round, 0, 0))
    (tmp_path / "ledger.json").unlink()
    if place == "link":
        (tmp_path / "ledger.json").symlink_to("nowhere")
    for use in (lambda: Releases.open(tmp_path, terms()), lambda: released_rounds(tmp_path)):
        with pytest.raises(FederationError, match=r"ledger\.json: is missing, and without it the releases are unknown"):
            use()


def test_releases_keep_newest_two_and_reject_older_round(tmp_path):
    releases = Releases.open(tmp_path, terms())
    for round in (1, 2, 3):
        releases.once(round, moved_weights(round, 0, 0))
    assert flat(Releases.open(tmp_path, terms()).once(2, moved_weights(0, 0, 0)))[0] == 3
    with pytest.raises(FederationError, match="no round is released twice"):
        releases.once(1, moved_weights(0, 0, 0))


def test_releases_once_rejects_round_beyond_budget(tmp_path):
    spent = epsilon_of(2.0, 2, 1e-5)
    releases = Releases.open(tmp_path, terms(noise_multiplier=2.0, epsilon=spent * 1.01))
    releases.once(1, moved_weights(1, 0, 0))
    releases.once(2, moved_weights(1, 0, 0))
    calls = []
    with pytest.raises(FederationError, match=r"^round 3: would spend an epsilon"):
        releases.once(3, lambda: calls.append(1))
    assert not calls, "the release is not computed"
    assert releases.once(2, moved_weights(0, 0, 0))["a"][0] == 2, "what was released is still given"
    assert releases.epsilon[-1] == pytest.approx(spent)


def test_releases_ledger_round_trips_as_json(tmp_path):
    releases = Releases.open(tmp_path, terms(epsilon=50.0), SHARES)
    releases.once(1, moved_weights(1, 0, 0))
    releases.once(2, moved_weights(1, 0, 0))
    result = read_sealed(tmp_path / "ledger.json")
    assert result == json.loads(json.dumps(releases.to_dict()))
    assert result["epsilon"] == pytest.approx([epsilon_of(1.0, 1, 1e-5), epsilon_of(1.0, 2, 1e-5)])
    later = Releases.open(tmp_path, terms(epsilon=50.0), {"north": 1.0})
    assert later.shares == SHARES, "whoever is there now, the shares are those of the beginning"
    assert later.to_dict() == releases.to_dict()


def test_releases_open_rejects_other_terms(tmp_path):
    Releases.open(tmp_path, terms()).once(1, moved_weights(1, 0, 0))
    with pytest.raises(FederationError, match=r"other terms of federation.privacy"):
        Releases.open(tmp_path, terms(noise_multiplier=0.1))


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_releases_open_rejects_invalid_ledger(tmp_path, text):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(FederationError, match=r"ledger.json: is damaged .*the releases are unknown"):
        Releases.open(tmp_path, terms())


def test_releases_detect_round_removed_from_ledger(tmp_path):
    """Otherwise the round could be released again beyond the budget."""
    releases = Releases.open(tmp_path, terms())
    releases.once(1, moved_weights(1, 0, 0))
    file = tmp_path / "ledger.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "rounds": []}))
    for read in (lambda: Releases.open(tmp_path, terms()), lambda: released_rounds(tmp_path)):
        with pytest.raises(FederationError, match=r"ledger.json: is damaged \(its digest differs\), and without it"):
            read()


def test_releases_once_rejects_damaged_release(tmp_path):
    releases = Releases.open(tmp_path, terms())
    releases.once(1, moved_weights(1, 0, 0))
    file = next(tmp_path.glob("round-*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FederationError, match=r"is damaged \(its digest differs\), and no round is released twice"):
        releases.once(1, moved_weights(1, 0, 0))
    os.truncate(file, 10)
    with pytest.raises(FederationError, match="no round is released twice"):
        Releases.open(tmp_path, terms()).once(1, moved_weights(1, 0, 0))


def test_releases_of_returns_released_weights(tmp_path):
    releases = Releases.open(tmp_path, terms())
    assert releases.of(1) is None
    releases.once(1, moved_weights(1, 0, 0))
    assert flat(releases.of(1)) == pytest.approx([2, 2, 3])


def test_releases_without_terms_store_and_spend_nothing(tmp_path):
    """Encoded arrays of any type; the ledger counts no spending for them."""
    releases = Releases.open(tmp_path, None)
    releases.once(1, lambda: {"a": np.ones(3, np.int8), "a#scale": np.float32(2)[...]})
    again = Releases.open(tmp_path, None)
    released = again.once(1, lambda: pytest.fail("released twice"))
    assert released["a"].dtype == np.int8
    assert again.epsilon == []
    assert released_rounds(tmp_path) == {}
    with pytest.raises(FederationError, match="other terms"):
        Releases.open(tmp_path, terms())


def test_withholds_scores_with_federation_or_patient_privacy():
    assert not withholds_scores(with_privacy())
    assert withholds_scores(with_privacy(privacy__epsilon=1.0))
    assert withholds_scores(override(recipe("ganet_seg_debug"), {"train.privacy.epsilon": 1.0}))
