"""Cases whose posterior is known: truth and samples from one normal distribution in each case."""

import numpy as np

LOW, HIGH = 0.3, 0.7


def posteriors(
    cases=2000, samples=99, *, scale=1.0, shift=0.0, size=2, spread=0.02, correlation=0.0, seed=0
):
    """Samples with `scale` times the right spread, moved by `shift` standard deviations.

    The truth has the correlation that is asked for, the samples have none.
    """
    rng = np.random.default_rng(seed)
    center = rng.uniform(LOW, HIGH, (cases, size))
    covariance = np.eye(size) + correlation * (1.0 - np.eye(size))
    truth = center + spread * rng.multivariate_normal(np.zeros(size), covariance, cases)
    drawn = shift + scale * rng.normal(size=(cases, samples, size))
    return center[:, None] + spread * drawn, truth
