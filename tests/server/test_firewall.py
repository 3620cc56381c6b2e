"""Updates are two tensors whose change has a given norm; each test states its norms."""

import json
import warnings

import numpy as np
import pytest

from server.firewall import AcceptedNorms, Firewall, Update
from server.rounds import Ledger

HEAD, BODY = "networks.segmenter.head.weight", "networks.segmenter.body.weight"
SENT = {HEAD: np.full((2, 2), 5.0, np.float32), BODY: np.zeros((4,), np.float32)}
"""|w_sent| = 10."""


def weights(norm=1.0, *, head=0.0):
    """SENT plus a change of total norm `norm`, of which `head` in the head."""
    arrays = {name: array.copy() for name, array in SENT.items()}
    arrays[BODY][0] += np.sqrt(norm**2 - head**2)
    arrays[HEAD][0, 0] += head
    return arrays


def update(site, norm=1.0, *, head=0.0, examples=100, metrics=None, **replaced):
    arrays = {**weights(norm, head=head), **replaced.get("arrays", {})}
    return Update(site, arrays, examples, {"train/loss": 0.5} if metrics is None else metrics)


def updates(**norms):
    return [update(site, norm) for site, norm in norms.items()]


def firewall(**settings):
    return Firewall(**{"largest_norm_ratio": 5.0, **settings})


def left_out(wall, answers, round=1):
    """Sites that are left out; checks that each update is either accepted or quarantined."""
    accepted, quarantined = wall.inspect(answers, SENT, round)
    assert len(accepted) + len(quarantined) == len(answers)
    assert not {entry.site for entry in quarantined} & {entry.site for entry in accepted}
    return [entry.site for entry in quarantined]


# What an update is


def test_firewall_passes_valid_updates_in_order():
    answers = updates(b=1, a=2, c=0.5)
    accepted, quarantined = firewall().inspect(answers, SENT, 1)
    assert accepted == answers
    assert all(passed is answer for passed, answer in zip(accepted, answers, strict=True))
    assert quarantined == []


def test_firewall_accepts_empty_round():
    assert firewall().inspect([], SENT, 1) == ([], [])


# Size, in a round by itself


def test_firewall_rejects_norm_above_ratio_times_median():
    wall = firewall()
    assert left_out(wall, updates(a=1, b=2, c=3, d=9.9)) == []
    assert left_out(firewall(), updates(a=1, b=2, c=3, d=10.1)) == ["d"]
    _, [entry] = firewall().inspect(updates(a=1, b=2, c=3, d=20), SENT, 1)
    assert entry.reason == "the change's norm is 10 times the usual one, more than 5"


def test_firewall_leaves_out_neither_of_two_updates_by_comparison():
    """Else a site would take every round alone by changes so small that the other's is far too large beside them."""
    for tiny in (1e-9, 1e-3, 0.1):
        assert left_out(firewall(), updates(a=1, x=tiny)) == []
    assert left_out(firewall(), updates(a=1, x=49)) == []
    accepted, [entry] = firewall().inspect(updates(a=1, x=51), SENT, 1)
    assert ([update.site for update in accepted], entry.site) == (["a"], "x")
    assert entry.reason == "the change's norm is 5.1 times the weights' own, more than 5"


def test_firewall_leaves_out_no_half_of_the_updates_by_comparison():
    assert left_out(firewall(), updates(a=1, b=1, x=1e-3, y=1e-3)) == []
    assert left_out(firewall(), updates(a=1, b=1, c=1, x=1e-3, y=1e-3)) == []
    assert left_out(firewall(), updates(a=1, b=1, c=1, x=6, y=6)) == ["x", "y"]


def test_firewall_leaves_out_no_half_of_the_updates_by_their_tensors():
    """The bad site's change is near the usual size and has nothing in the head, where the other's mainly is."""
    assert left_out(firewall(), [update("a", 1, head=0.99), update("x", 0.3)]) == []
    assert left_out(after({"a": 0.3, "x": 0.3}), [update("a", 1, head=0.99), update("x", 0.3)], 2) == []


def test_firewall_tolerates_one_tiny_update():
    assert left_out(firewall(), updates(x=0.001, a=1, b=1.5)) == []


def test_firewall_ignores_zero_updates_in_median():
    assert left_out(firewall(), updates(x=0, a=1)) == []
    assert left_out(firewall(), updates(x=0, y=0, a=1, b=1.5)) == []
    assert left_out(firewall(), updates(x=0, y=0)) == []
    assert left_out(firewall(), updates(w=0, y=0, z=0, a=1, b=1, x=40)) == ["x"]


def test_firewall_compares_single_site_with_weight_norm():
    assert left_out(firewall(), updates(a=49)) == []
    assert left_out(firewall(), updates(x=51)) == ["x"]
    assert left_out(firewall(), updates(x=51, a=0)) == ["x"]


def test_firewall_passes_single_update_of_zero_weights():
    sent = {name: np.zeros_like(array) for name, array in SENT.items()}
    accepted, quarantined = firewall().inspect([update("a")], sent, 1)
    assert (len(accepted), quarantined) == (1, [])


def test_firewall_passes_update_below_thousandth_of_weight_norm():
    # |w_sent| = 10: where the others change by next to nothing, 0.01 is allowed.
    assert left_out(firewall(), updates(a=1e-6, b=1e-6, c=0.0099)) == []
    assert left_out(firewall(), updates(a=1e-6, b=1e-6, x=0.0101)) == ["x"]


def test_firewall_handles_largest_float32_values():
    huge = np.full(4, 3e38, np.float32)
    sent = {**SENT, BODY: -huge}
    honest = [Update(site, {**SENT, BODY: -huge * np.float32(0.999)}, 1, {}) for site in ("a", "b")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert left_out(firewall(), [update("a"), update("b"), update("x", arrays={BODY: huge})]) == ["x"]
        wall = firewall()
        accepted, [entry] = wall.inspect([*honest, Update("x", {**SENT, BODY: huge}, 1, {})], sent, 1)
    assert entry.reason.startswith("the change's norm is 2e+03 times")
    assert [passed.site for passed in accepted] == ["a", "b"]
    # Four values each 3e35 from the sent ones.
    assert wall.accepted.rounds[1] == {"a": pytest.approx(6e35, rel=1e-3), "b": pytest.approx(6e35, rel=1e-3)}


# Size, over the rounds


def after(*rounds, **settings):
    """A firewall that has accepted rounds 1, 2, ... with these norms by site."""
    wall = firewall(**settings)
    for number, norms in enumerate(rounds, start=1):
        assert left_out(wall, updates(**norms), number) == []
    return wall


def test_firewall_compares_single_site_with_earlier_rounds_of_others():
    assert left_out(after({"a": 1, "b": 1}), updates(x=5.1), 2) == ["x"]
    assert left_out(after({"a": 1, "b": 1}), updates(x=4.9), 2) == []
    # Its own past and the other's: of two, neither is usual, and the weights bound them.
    assert left_out(after({"a": 1, "x": 4}), updates(x=6), 2) == []
    assert left_out(after({"a": 1, "x": 4}), updates(x=51), 2) == ["x"]


def test_firewall_median_includes_absent_sites():
    # Two of five answer alike; the three that are late have not forgotten.
    wall = after({"a": 1, "b": 1, "c": 1, "x": 1, "y": 1})
    assert left_out(wall, updates(a=1, x=40, y=40), 2) == ["x", "y"]


def test_firewall_uses_latest_norm_of_absent_sites():
    wall = after({"a": 1, "b": 1}, {"a": 3, "b": 3})
    assert left_out(wall, updates(c=14), 3) == []
    assert left_out(wall, updates(x=16), 3) == ["x"]


def test_firewall_accepts_joint_growth_of_all_sites():
    assert left_out(after({"a": 1, "b": 1}, {"a": 1, "b": 1}), updates(a=30, b=20), 3) == []
    assert left_out(after({"a": 1, "b": 1, "c": 1}), updates(a=30, b=20, c=25, d=101), 2) == []
    assert left_out(after({"a": 1, "b": 1, "c": 1}), updates(a=30, b=20, c=25, d=126), 2) == ["d"]


def test_firewall_accepts_learning_site_among_converged_sites():
    wall = after(*[{"a": 1, "b": 1, "c": 1}] * 3)
    assert left_out(wall, updates(a=0.02, b=0.02, c=1), 4) == []
    # Where they always were that small, it is.
    wall = after(*[{"a": 0.02, "b": 0.02, "c": 0.02}] * 3)
    assert left_out(wall, updates(a=0.02, b=0.02, c=1), 4) == ["c"]


def test_firewall_accepts_usual_update_beside_tiny_one():
    wall = after(*[{"a": 1, "x": 1}] * 3)
    for round in (4, 5):
        assert left_out(wall, updates(a=1, x=0.001), round) == []


def test_firewall_does_not_remember_zero_norms():
    wall = after({"a": 1, "b": 1}, {"a": 0, "b": 1})
    assert left_out(wall, updates(x=5.1), 3) == ["x"]
    assert 0 not in wall.accepted.rounds[2].values()


def test_firewall_does_not_remember_rejected_norms():
    wall = firewall()
    assert left_out(wall, updates(a=1, b=1, c=1, x=50, y=60)) == ["x", "y"]
    assert wall.accepted.rounds == {1: dict.fromkeys("abc", pytest.approx(1))}


def test_accepted_norms_expire_after_five_rounds():
    wall = after({"a": 1, "b": 1})
    assert wall.accepted.usual(6, {}) == pytest.approx(1)
    assert wall.accepted.usual(7, {}) is None
    for round in range(2, 20):
        left_out(wall, updates(a=1, b=1), round)
    assert sorted(wall.accepted.rounds) == [14, 15, 16, 17, 18, 19]


def test_firewall_replaces_repeated_round_and_later_ones():
    wall = after({"a": 1, "b": 1}, {"a": 4, "b": 4}, {"a": 9, "b": 9})
    left_out(wall, updates(a=2, c=2), 2)
    assert wall.accepted.rounds == {1: {"a": 1, "b": 1}, 2: {"a": 2, "c": 2}}


def test_firewall_ignores_earlier_attempt_of_repeated_round():
    assert left_out(after({"a": 1, "b": 1}), updates(a=30, c=25), 1) == []
    assert left_out(after({"a": 1, "b": 1}), updates(a=30), 1) == []


@pytest.mark.parametrize("seed", range(5))
def test_firewall_restored_from_ledger_gives_same_verdicts(seed):
    rng = np.random.default_rng(seed)
    whole, restarted = firewall(), firewall()
    verdicts = []
    for round in range(1, 15):
        sites = rng.choice(list("abcde"), size=int(rng.integers(1, 6)), replace=False)
        answers = [update(str(site), float(10 ** rng.uniform(-1, 1))) for site in sites]
        state = json.dumps(Ledger(accepted_norms=restarted.accepted.rounds).model_dump(), allow_nan=False)
        restarted = firewall(accepted=AcceptedNorms(Ledger.model_validate_json(state).accepted_norms))
        verdicts.append(whole.inspect(answers, SENT, round))
        assert restarted.inspect(answers, SENT, round) == verdicts[-1]
    assert any(quarantined for _, quarantined in verdicts)


@pytest.mark.parametrize("good", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_firewall_bound_resists_slowly_growing_norms(good, seed):
    """The bad site sends the largest passing change in every round; the good ones often miss rounds."""
    rng = np.random.default_rng(seed)
    wall = firewall()

    def passes(honest, norm, round):
        trial = firewall(accepted=AcceptedNorms(dict(wall.accepted.rounds)))
        return "x" not in left_out(trial, updates(**honest, x=norm), round)

    for round in range(1, 30):
        honest = {
            f"g{number}": float(rng.uniform(1, 2)) for number in range(good) if round % 5 == 1 or rng.random() < 0.3
        }
        largest = next(float(norm) for norm in np.geomspace(1000, 1, 60) if passes(honest, float(norm), round))
        assert 4 < largest <= 10
        assert left_out(wall, updates(**honest, x=largest), round) == []


# Size, of one tensor


def test_firewall_rejects_change_concentrated_in_one_tensor():
    # 4 of 5 allowed in the whole; the head is a tenth of the others' changes and nearly all of this one's.
    honest = [update(site, 1, head=0.1) for site in "abc"]
    accepted, [entry] = firewall().inspect([*honest, update("x", 4, head=3.9)], SENT, 1)
    assert (entry.site, entry.reason) == ("x", f"{HEAD}: takes up far more of the change than at the other sites")
    assert accepted == honest


def test_firewall_accepts_tensor_within_usual_norm():
    assert left_out(firewall(), [*(update(site, 1, head=0.1) for site in "abc"), update("d", 1, head=0.99)]) == []


def test_firewall_accepts_larger_change_of_usual_shares():
    assert left_out(firewall(), [*(update(site, 1, head=0.6) for site in "abc"), update("d", 4.5, head=2.7)]) == []


def test_firewall_tensor_shares_do_not_depend_on_convergence():
    wall = after(*[{"a": 1, "b": 1, "c": 1}] * 3)
    converged = [update(site, 0.1, head=0.01) for site in "abc"]
    assert left_out(wall, [*converged, update("d", 4, head=1.6)], 4) == []
    assert left_out(wall, [*converged, update("x", 4, head=2.4)], 4) == ["x"]


def test_firewall_rejects_tensor_changed_by_one_site_only():
    assert left_out(firewall(), [update("a"), update("b"), update("x", 4, head=2)]) == ["x"]


def test_firewall_ignores_tensor_shares_of_zero_updates():
    wall = after({"a": 1, "b": 1})
    assert left_out(wall, [update("a", 0), update("b", 2, head=1.5)], 2) == []


def test_firewall_does_not_compare_tensor_shares_of_single_site():
    assert left_out(after({"a": 1, "b": 1}), [update("a", 4, head=4)], 2) == []


def test_firewall_compares_tensor_with_weights_when_others_converged():
    answers = [update("a", 1e-6), update("b", 1e-6), update("c", 0.0099, head=0.0099)]
    assert left_out(firewall(), answers) == []
