"""The count of alarms in the POLLU experiment, on a problem where all answers are known."""

import jax.random as jr
import numpy as np

from experiments.pollu._alarms import alarms, describe
from inojax.methods import calibrate
from tests.helpers import linear_gaussian, optimizations
from tests.methods.toys import Toy, simulations


def test_what_is_wrong_is_counted_and_what_is_not_seen_is_said():
    with optimizations(False):
        calibrated = calibrate(Toy(linear_gaussian()), simulations(200, seed=1), key=jr.key(0))
        found = alarms(calibrated, simulations(100, seed=2), each=10, key=jr.key(1))
    assert found["cases"] == 100
    assert found["false_alarms"] <= 0.07  # 2 % are meant, 100 cases scatter by 1.4 %
    assert found["noise_tenfold"] >= 0.95
    # A slope of zero is within the prior: it explains its readings, though they are far away.
    assert all(share <= 0.2 for share in found["missing_term"].values())
    assert all(moved > 0.5 for moved in found["moved_by"].values())
    text = describe(found)
    assert "ten times the noise" in text
    assert "0 of 2" in text
    assert np.isfinite(list(found["moved_by"].values())).all()
