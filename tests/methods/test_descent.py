"""Steps of descents where they are easy to follow."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from inojax.methods import GaussNewtonWeightOptimizer
from inojax.methods.pde._weight_optimizers import Region, Target, nothing, optimize_weights

REGION = Region(jnp.zeros((1, 1)), jnp.zeros(1), jnp.ones(1))


def end_of(descent, rows, start, steps=60):
    target = Target(lambda weights, points: rows(weights)[None, :], nothing)
    return optimize_weights(descent, target, REGION, jnp.array(start), steps, key=jr.key(0))


def test_cautious_steps_reach_where_others_diverge():
    """Newton's method on arctan w = 0 runs away from beyond 1.39."""
    bold = GaussNewtonWeightOptimizer(points=None, learning_rate=1.0, final_rate=1.0, damping=1e-6)
    cautious = GaussNewtonWeightOptimizer(
        points=None, learning_rate=1.0, final_rate=1.0, damping=1e-6, cautious=True
    )
    away, _ = end_of(bold, jnp.arctan, [2.0], steps=6)
    assert not np.abs(away[0]) < 1e3
    found, losses = end_of(cautious, jnp.arctan, [2.0])
    assert np.abs(found[0]) < 1e-5
    assert (np.diff(losses) <= 0.0).all()


def test_cautious_steps_leave_what_is_not_finite():
    """Over the edge of the logarithm's domain there is nothing, and steps back off from it."""
    cautious = GaussNewtonWeightOptimizer(
        points=None, learning_rate=1.0, final_rate=1.0, cautious=True
    )
    found, losses = end_of(cautious, jnp.log, [6.0])
    np.testing.assert_allclose(found, [1.0], atol=1e-4)
    assert np.isfinite(losses).all()


def test_where_steps_are_taken_caution_changes_nothing():
    """Rows that are linear."""

    def rows(weights):
        return jnp.array([[2.0, 1.0], [0.5, 3.0]]) @ weights - 1.0

    ends = [
        end_of(
            GaussNewtonWeightOptimizer(points=None, cautious=cautious), rows, [0.0, 4.0], steps=9
        )[0]
        for cautious in (False, True)
    ]
    np.testing.assert_array_equal(*ends)
