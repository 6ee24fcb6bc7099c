"""What a trust ticket makes of its numbers."""

import json

import jax
import numpy as np
import pytest

from inojax import Calibration, EstimateStatus, TrustTicket, Verdict
from inojax._multi_start import MultiStart
from tests.refuses import refuses


def ticket(**changes):
    """A ticket that finds nothing wrong, with some numbers changed."""
    numbers = {
        "status": np.array(int(EstimateStatus.OK)),
        "chi2_per_reading": np.array(1.02),
        "p_value": np.array(0.4),
        "best_p_value": np.array(np.nan),
        "modes": np.array(1),
        "tempering_exponent": np.array(np.nan),
        "exact": False,
        "corrected": False,
        "noise_known": True,
        "calibration": calibration(),
    }
    return TrustTicket(**(numbers | changes))


def calibration(**changes):
    numbers = {
        "misfit_p_value": np.array(0.5),
        "misspecification_p_value": np.array(0.5),
        "unexplained": np.array(0.9),
        "surrogate_gap": np.array(0.3),
        "surrogate_p_value": np.array(0.5),
        "coverage": np.array([0.9, 0.91]),
        "cases": 500,
    }
    return Calibration(**(numbers | changes))


POOR = {"p_value": np.array(1e-9), "chi2_per_reading": np.array(40.0)}
FAILED = {"status": np.array(int(EstimateStatus.SOLVER_FAILED)), "p_value": np.array(np.nan)}

# What is wrong, the verdict, and a word of its first reason.
CASES = {
    "nothing": ({}, Verdict.TRUST, "explains the readings"),
    "solver failed": (FAILED, Verdict.DO_NOT_TRUST, "could not be solved"),
    "no noise": ({"p_value": np.array(np.nan)}, Verdict.CHECK, "has not been solved"),
    "usual misfit of a network": (POOR, Verdict.TRUST, "in 50% of held-out"),
    "unusual misfit": (
        POOR | {"calibration": calibration(misfit_p_value=np.array(0.004))}, Verdict.CHECK, "99.6%"
    ),
    "misfit, never tested": (POOR | {"calibration": None}, Verdict.CHECK, "Refine it"),
    "misfit of the best fit": (
        POOR | {"calibration": None, "exact": True}, Verdict.DO_NOT_TRUST, "are likely wrong"
    ),
    "mean between modes": (
        POOR | {"calibration": None, "exact": True, "best_p_value": np.array(0.3)},
        Verdict.CHECK, "between modes",
    ),
    "misfit of chains apart": (
        POOR
        | {"calibration": None, "exact": True, "status": np.array(int(EstimateStatus.NOT_MIXED))},
        Verdict.DO_NOT_TRUST, "by more than their noise",
    ),
    "one narrow interval of many": (
        {"calibration": calibration(coverage=np.array([0.5, *[0.95] * 11]))}, Verdict.CHECK, "worst"
    ),
    "chance among many intervals": (
        {"calibration": calibration(coverage=np.array([0.86, *[0.9] * 11]))},
        Verdict.TRUST, "explains"
    ),
    "never tested": ({"calibration": None}, Verdict.CHECK, "never been tested"),
    "exact, never tested": ({"calibration": None, "exact": True}, Verdict.TRUST, "explains"),
    "weighed by the solver": (
        {"calibration": None, "exact": True, "tempering_exponent": np.array(1.0)},
        Verdict.TRUST,
        "explains",
    ),
    "weighed in part": (
        {"calibration": None, "exact": True, "tempering_exponent": np.array(0.25)},
        Verdict.CHECK, "to the power 0.25",
    ),
    "linearized": (
        {"calibration": None, "exact": True, "tempering_exponent": np.array(0.0)},
        Verdict.CHECK, "linearized at its optima. `Posterior`",
    ),
    "linearized, corrected": (
        {
            "calibration": None, "exact": True, "corrected": True,
            "tempering_exponent": np.array(0.0),
        },
        Verdict.TRUST, "explains",
    ),
    "corrected": ({"calibration": None, "corrected": True}, Verdict.TRUST, "explains"),
    "strange readings": (
        {"calibration": calibration(misspecification_p_value=np.array(0.01))},
        Verdict.CHECK, "unlike the simulations"
    ),
    "stranger than any": (
        {"calibration": calibration(misspecification_p_value=np.array(1 / 501))},
        Verdict.DO_NOT_TRUST, "all 500"
    ),
    "surrogate is off": (
        {"calibration": calibration(surrogate_p_value=np.array(0.01))}, Verdict.CHECK, "surrogate"
    ),
    "no surrogate": (
        {"calibration": calibration(surrogate_p_value=np.array(np.nan))}, Verdict.TRUST, "explains"
    ),
    "narrow intervals": (
        {"calibration": calibration(coverage=np.array([0.5, 0.9]))}, Verdict.CHECK, "too narrow"
    ),
    "chains apart": (
        {"status": np.array(int(EstimateStatus.NOT_MIXED))}, Verdict.CHECK, "chains"
    ),
    "two modes": ({"modes": np.array(2)}, Verdict.CHECK, "2 different"),
    "nothing unfamiliar": ({"unfamiliar": np.array(0)}, Verdict.TRUST, "explains"),
    "more rows than slots": ({"unfamiliar": np.array(1)}, Verdict.CHECK, "dealt into groups"),
    "between output times": ({"unfamiliar": np.array(2)}, Verdict.CHECK, "between output times"),
    "readings lost": ({"unfamiliar": np.array(4)}, Verdict.CHECK, "than is usual in training"),
    "all of it": ({"unfamiliar": np.array(7)}, Verdict.CHECK, "dealt into groups"),
    "estimated noise": ({"noise_known": False}, Verdict.TRUST, "explains"),
    "too close": ({"closer_p_value": np.array(1e-9)}, Verdict.CHECK, "noise is too high"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "verdict", "word"), CASES.values(), ids=CASES)
def test_the_verdict_is_the_worst_finding_and_says_why(changes, verdict, word):
    found = ticket(**changes)
    assert found.verdict is verdict
    assert word in found.reasons[0]
    assert str(found).startswith(f"Verdict: {verdict}\n")
    assert all(reason in str(found) for reason in found.reasons)


def search(starts, arrived, optima, best):
    return MultiStart(*(np.asarray(x) for x in (starts, arrived, optima, best)))


EXACT = {"calibration": None, "exact": True}
WEIGHED = EXACT | {"tempering_exponent": np.array(1.0)}
NOT_MIXED = {"status": np.array(int(EstimateStatus.NOT_MIXED))}

# A sentence, evidence that bears it, and evidence of which it would be false.
SENTENCES = {
    "explains the readings": [{}, POOR, FAILED, {"closer_p_value": np.array(1e-6)}],
    "closer to the readings than their noise": [
        {"closer_p_value": np.array(1e-6)}, {"closer_p_value": np.array(0.01)},
        {"closer_p_value": np.array(np.nan)}, {},
    ],
    "no more readings than parameters": [
        {"spare_readings": np.array(0)}, {"spare_readings": np.array(1)}, {},
    ],
    "are likely wrong": [
        POOR | EXACT | {"search": search(8, 8, 1, 8)},
        POOR | EXACT | {"search": search(8, 8, 8, 1)},
        POOR | EXACT | {"search": search(128, 128, 30, 1)},
        POOR | EXACT | {"search": search(1, 1, 1, 1)},
        POOR | EXACT | {"search": search(8, 8, 1, 8), "best_p_value": np.array(0.3)},
        POOR | EXACT | NOT_MIXED,
    ],
    "each ended in an optimum of its own: there may be a better one": [
        POOR | EXACT | {"search": search(8, 8, 8, 1)},
        POOR | EXACT | {"search": search(8, 8, 2, 7)},
        WEIGHED | {"search": search(8, 8, 8, 1)},
    ],
    "ended in a single optimum": [
        POOR | EXACT | {"search": search(8, 8, 1, 8)},
        POOR | EXACT | {"search": search(8, 8, 2, 7)},
    ],
    "So do all of its samples": [
        POOR | EXACT | {"best_p_value": np.array(1e-8)}, POOR | EXACT,
        POOR | EXACT | {"best_p_value": np.array(1e-8), "search": search(8, 8, 1, 8)},
    ],
    "or the prior draws it away": [
        POOR | EXACT | {"best_p_value": np.array(0.3)},
        POOR | EXACT | {"best_p_value": np.array(0.0)},
    ],
    "The intervals come from the real solver": [
        WEIGHED, EXACT | {"tempering_exponent": np.array(0.5)}, WEIGHED | POOR, WEIGHED | NOT_MIXED,
        WEIGHED | {"solver_draws": np.array(2.0)}, {"calibration": None},
    ],
    "Only 2 draws": [
        WEIGHED | {"solver_draws": np.array(2.0)}, WEIGHED | {"solver_draws": np.array(128.0)}
    ],
    "1 ended in the best of 28 optima": [
        WEIGHED | {"search": search(32, 32, 28, 1)}, WEIGHED | {"search": search(32, 32, 1, 32)}
    ],
    "different modes": [
        {"modes": np.array(2)}, {}, POOR | {"modes": np.array(2)}
    ],
    "different optima": [POOR | {"modes": np.array(2)}, {"modes": np.array(2)}],
    "miss by as much in 50% of": [
        POOR, {}, POOR | {"calibration": calibration(misfit_p_value=np.array(0.01))},
    ],
    "too narrow": [
        {"calibration": calibration(coverage=np.full(2, 0.8))},
        # Two standard errors of 3 %: chance.
        {"calibration": calibration(coverage=np.full(2, 0.84), cases=100)},
    ],
    "Correct them by `methods.conformal`": [
        {"calibration": calibration(coverage=np.full(2, 0.8))},
        {"calibration": calibration(coverage=np.full(2, 0.8)), "corrected": True},
    ],
    "could not be solved": [
        FAILED, {"status": np.array(int(EstimateStatus.IMPOSSIBLE_READINGS))},
    ],
    "impossible under the noise": [
        {"status": np.array(int(EstimateStatus.IMPOSSIBLE_READINGS))}, FAILED,
    ],
    "point that is no optimum": [{"status": np.array(int(EstimateStatus.NOT_CONVERGED))}, POOR],
    "treat the spread as a guess": [NOT_MIXED, {}],
    "noise level is estimated": [{"noise_known": False}, {}],
}  # fmt: skip


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_said_where_it_is_true_and_only_there(sentence):
    borne, *false = SENTENCES[sentence]
    assert sentence in str(ticket(**borne))
    for changes in false:
        assert sentence not in str(ticket(**changes)), changes


@pytest.mark.parametrize("status", ["SOLVER_FAILED", "NOT_CONVERGED", "IMPOSSIBLE_READINGS"])
def test_nothing_good_is_said_of_an_estimate_that_is_none(status):
    found = ticket(status=np.array(int(EstimateStatus[status])), exact=True, calibration=None)
    assert found.verdict is Verdict.DO_NOT_TRUST
    assert found.reasons == (EstimateStatus[status].message,)


def test_too_few_readings_are_a_reason_to_check_unless_the_inverter_was_calibrated():
    few = {"spare_readings": np.array(-2)}
    assert ticket(**few, **EXACT).verdict is Verdict.CHECK
    assert ticket(**few).verdict is Verdict.TRUST


def test_errors_that_hide_in_an_estimated_noise_level_are_mentioned():
    assert any("noise level is estimated" in r for r in ticket(noise_known=False).reasons)


@pytest.mark.parametrize("changes", [case[0] for case in CASES.values()], ids=CASES)
def test_it_is_json(changes):
    content = json.loads(json.dumps(ticket(**changes).as_dict(), allow_nan=False))
    assert content["verdict"] in list(Verdict)
    assert content["reasons"]
    assert ("calibration" in content) == (changes.get("calibration", 0) is not None)


def test_a_batch_has_no_single_verdict():
    batch = jax.tree.map(lambda x: np.stack([x, x]), ticket())
    with refuses(ValueError, match="batch of shape"):
        str(batch)
    assert jax.tree.map(lambda x: x[1], batch).verdict is Verdict.TRUST
