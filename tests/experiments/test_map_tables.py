"""The scores of inverse maps' tables against numbers worked out by hand."""

import types
from pathlib import Path

import numpy as np

import experiments.fitzhugh_nagumo.__main__ as script
from experiments.fitzhugh_nagumo import _maps, _report, _tables, _width_timing

ROOT = Path(__file__).parents[2]
TRUTH = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 12.0]])


def test_scores_of_estimates():
    found = TRUTH + np.array([[0.1, 0.0], [0.0, -0.4], [0.5, 1.2]])
    # Squares .01, 0, .25 over three, of a variance of 8/3; 0, .16 and 1.44 of 56/3.
    np.testing.assert_allclose(_tables.r2(found, TRUTH), [1 - 0.26 / 8, 1 - 1.6 / 56])
    # Relative errors .1 0 0 .1 .1 .1
    np.testing.assert_allclose(_tables.median_ape(found, TRUTH), 0.1)
    np.testing.assert_allclose(_tables.median_ape_norm(found, TRUTH), 0.4 / 5.0)


def test_the_floor_is_the_mean_variance_of_what_could_be_solved():
    covariance = np.stack([np.diag([0.4, 1.0]), np.diag([0.2, 3.0]), np.full((2, 2), np.nan)])
    row = _tables.floor_row("x", TRUTH, covariance, 0.3)
    assert row["cases"] == 2
    # Of two truths at distance 2 the variance is 1.
    np.testing.assert_allclose(row["r2"], [1.0 - 0.3, 1.0 - 2.0])


def answers(covariance, values=TRUTH):
    blank = np.zeros((0, 2, 2))
    nothing = np.full(2, np.nan)
    return _maps.Answers(values, values, blank, covariance, nothing, np.array(1.0), np.array(1.0))


def test_errors_of_covariances():
    laplace = np.stack([np.eye(2), 2.0 * np.eye(2), np.full((2, 2), np.nan)])
    stated = np.stack([1.5 * np.eye(2), 2.2 * np.eye(2), np.eye(2)])
    mean, covariance = _tables.covariance_errors(
        answers(stated, 1.25 * TRUTH), "noisy", TRUTH, laplace
    )
    np.testing.assert_allclose([mean, covariance], [0.25, 0.3])


def test_errors_of_series_are_their_bias_and_the_rest():
    states = np.arange(32.0).reshape(4, 4, 2)
    states[3, 1, 0] = np.nan
    error = np.array(
        [[1.0, 3.0, 1.0, 3.0], [-1.0, 1.0, -1.0, 1.0], [1.0, 9.0, 1.0, 9.0], [0.0] * 4]
    )
    clean = np.nan_to_num(states[:, :, :1]) - error[:, :, None]
    problem = types.SimpleNamespace(
        channel_index=(0,),
        model=types.SimpleNamespace(
            solve_ensemble=lambda thetas: types.SimpleNamespace(states=states)
        ),
    )
    trials = types.SimpleNamespace(problem=problem, clean=types.SimpleNamespace(values=clean))
    # The last could not be solved; biases of the others are 2, 0 and 5, the rest 1, 1 and 16.
    errors = _tables.series_errors(trials, np.zeros((4, 2)))
    np.testing.assert_allclose(errors, (29.0 / 3.0, 6.0, 4.0, 1.0))


def cell(value, low, high, published):
    return {"x": value, "x_range": [low, high], "published": published}


def test_pairs_are_ordered_as_published_undecided_or_the_other_way_round():
    rows = [cell(1.0, 0.9, 1.1, 1.0), cell(2.0, 1.9, 2.1, 2.0), cell(1.8, 1.7, 1.95, 3.0)]
    found = _tables.order_agreement(rows, lambda row: row["published"], "x")
    # The third is above the first, and below the second by less than the seeds scatter.
    assert found == {"same": 2, "undecided": 1, "opposite": 0}
    rows[2] = cell(0.5, 0.4, 0.6, 3.0)
    found = _tables.order_agreement(rows, lambda row: row["published"], "x")
    assert found == {"same": 1, "undecided": 0, "opposite": 2}
    rows[2] = cell(0.5, 0.4, 0.6, 2.0)  # ties are not ordered
    found = _tables.order_agreement(rows, lambda row: row["published"], "x")
    assert found == {"same": 1, "undecided": 0, "opposite": 1}


def test_work_of_training_is_counted():
    # Two products of 1000 x 32 (values, weights), three of each other layer; 2 operations each.
    expected = 2 * (2 * 1000 * 32 + 3 * (7 * 32 * 32 + 32 * 2))
    assert _width_timing.training_flops(32) == expected


def row(table, method, kind, **numbers):
    train, test = kind.split("/")
    shared = {"table": table, "method": method, "simulations": 8000}
    return shared | {"train_noise": train, "test_noise": test} | numbers


def test_claims_are_met_or_not():
    rows = [
        row("b", "cnn", "clean/clean", median_ape=0.0141, r2_mean=0.999),
        row(
            "b", "ours", "noisy/noisy", median_ape=0.03, r2_mean=0.985, coverage_90=0.93,
            coverage_90_each=[0.91, 0.95],
        ),
        row(
            "b", "ours_fresh", "noisy/noisy", r2=[0.98, 0.99], floor_r2=[0.986, 0.99],
            coverage_90=0.9, coverage_90_each=[0.87, 0.93],
        ),
        row("d", "cnn_both", "noisy/noisy", r2=[0.97, 0.95, 0.7, 0.72]),
    ]  # fmt: skip
    met = {claim["text"]: claim["met"] for claim in _report.claims(rows, {"network": 3e-3})}
    assert met == {
        "cnn clean/clean, Median-APE": False,
        "cnn clean/clean, R2": True,
        "ours noisy/noisy, R2": True,
        "ours noisy/noisy, Median-APE": True,
        "ours, 90 % intervals hold the truth": False,
        "ours, 90 % intervals hold the truth, the rarest parameter": True,
        "ours, 90 % intervals hold the truth, the most frequent": False,
        "ours, fresh, 90 % intervals hold the truth": True,
        "ours, fresh, 90 % intervals hold the truth, the rarest parameter": False,
        "ours, fresh, 90 % intervals hold the truth, the most frequent": False,
        "ours with fresh simulations, R2 below the floor": False,
        "unknown noise, cnn, R2 of theta0": True,
        "unknown noise, cnn, R2 of theta1": True,
        "unknown noise, cnn, R2 of sigma": True,
        "unknown noise, cnn, R2 of rho": False,
        "one network pass under jit, warm, ms": False,
    }


def test_chosen_tables_train_the_maps_that_they_need():
    cells = script.all_specs(script.SIZES[script.Preset.PAPER])
    every = [cell for some in cells.values() for cell in some]

    def names(letters):
        return {cell.stem for cell in script.needed(cells, frozenset(letters))}

    assert len(script.needed(cells, frozenset("abcdefgh"))) == len(every)
    assert names("f") == set()
    assert names("g") == {"ours_neuron_8000_noisy"}
    clean, noisy = "cnn_neuron_8000_clean", "cnn_neuron_8000_noisy"
    assert names("c") == {"ours_neuron_8000_noisy", clean, noisy}
    assert names("d") == {cell.stem for cell in every if cell.joint}
    assert script.FitzHughNagumo(only=("c",)).tables == {"c", "h"}
    assert script.FitzHughNagumo().tables == set("abcdefgh")
