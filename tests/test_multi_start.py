"""What numbers of starts and optima say about those that were not found."""

import numpy as np
import pytest

from inojax._multi_start import MultiStart


def search(starts, arrived, optima, best):
    return MultiStart(*(np.asarray(x) for x in (starts, arrived, optima, best)))


@pytest.mark.parametrize(
    ("arrived", "optima", "unseen"),
    # w (w + 1) / (n (n - 1)): Boender and Rinnooy Kan (1987).
    [(8, 1, 2 / 56), (8, 2, 6 / 56), (20, 4, 20 / 380), (8, 8, 1.0), (1, 1, 1.0), (0, 0, 0.0)],
)
def test_the_chance_of_an_optimum_that_is_not_known(arrived, optima, unseen):
    np.testing.assert_allclose(search(arrived, arrived, optima, 1).unseen, unseen)


def test_a_search_is_settled_where_that_is_rare_and_the_best_was_found_twice():
    numbers = np.array([[8, 8, 1, 8], [8, 8, 2, 7], [24, 24, 4, 9], [24, 24, 4, 1], [1, 1, 1, 1]])
    found = MultiStart(*numbers.T).settled
    np.testing.assert_array_equal(found, [True, False, True, False, False])


@pytest.mark.parametrize("basins", [2, 4, 10, 40])
def test_the_rule_does_not_promise_too_much(basins):
    """Of equal basins n starts find w, and 1 - w / number of them is left, whatever is told."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, basins, (4000, 12))
    optima = np.array([len(set(row)) for row in ends.tolist()])
    told = search(np.full(4000, 12), np.full(4000, 12), optima, np.full(4000, 2)).unseen
    assert told.mean() > np.mean(1.0 - optima / basins)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((8, 8, 8, 1), "Of 8 starts each ended in an optimum of its own"),
        ((8, 6, 6, 1), "Of 8 starts (2 of them in no optimum) each ended in an optimum of its own"),
        ((128, 128, 30, 1), "Of 128 starts 1 ended in the best of 30 optima"),
        ((8, 8, 1, 8), "Of 8 starts 8 ended in a single optimum"),
        ((1, 1, 1, 1), "A single start was taken"),
    ],
)
def test_it_says_how_many_ended_where(numbers, text):
    assert str(search(*numbers)) == text
