"""A gene regulatory network with 40 unknown regulatory strengths."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import Gaussian
from ._checks import check_count, check_noise

GENES = 20
_TIMES = 100
_DECAY, _TRANSCRIPTION = 1.0, 1.0

# Standard deviation of each gene over the prior and all output times:
# `model.solve_ensemble(parameters.design(4096, key=jr.key(0))).states.std((0, 1))`.
STD = (
    7.72636e-01, 7.36881e-01, 7.31566e-01, 7.28513e-01, 7.23648e-01, 7.19635e-01, 7.15910e-01,
    7.12489e-01, 7.09238e-01, 7.06006e-01, 7.02946e-01, 6.99563e-01, 6.97431e-01, 6.94753e-01,
    6.90447e-01, 6.89618e-01, 6.87455e-01, 6.85614e-01, 6.83592e-01, 6.82276e-01,
)  # fmt: skip


def grn(*, noise: float = 1e-3, readings: int = 3, missing: float = 0.0) -> InverseProblem:
    """Recover 40 regulatory strengths of 20 genes from sparse readings of their expression.

    dx/dt = c + K g(x) - γ x with g(x) = x² / (1 + x²): each gene regulates itself (20 strengths,
    uniform on [0, 2]) and the next one in a ring (20 strengths, uniform on [-1, 1]). Smooth and
    hardly stiff, so that it shows what many parameters alone do to a method.

    Args:
        noise: Standard deviation of the noise, as a fraction of each gene's prior predictive
            standard deviation.
        readings: Number of times, drawn from 100 evenly spaced ones on (0, 10].
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        arXiv 2603.11854 for the task (20 genes, 40 strengths); it does not state constants,
        ranges and start, which are ours.

    Example:
        >>> problem = ij.problems.grn()
        >>> problem.parameters.size, len(problem.channels)
        (40, 20)
    """
    import numpyro.distributions as dist

    check_noise(noise)
    check_count("readings", readings, most=_TIMES)
    own = [Parameter(f"K{i}_{i}", dist.Uniform(0.0, 2.0)) for i in range(1, GENES + 1)]
    ring = [
        Parameter(f"K{i % GENES + 1}_{i}", dist.Uniform(-1.0, 1.0)) for i in range(1, GENES + 1)
    ]
    model = ODEModel(
        _vector_field,
        0.1 + 0.9 * np.arange(GENES) / (GENES - 1),
        times=np.linspace(0.1, 10.0, _TIMES),
        states=tuple(f"x{i}" for i in range(1, GENES + 1)),
        rtol=1e-6,
        atol=1e-9,
    )
    return InverseProblem(
        "grn",
        ParameterSpace((*own, *ring)),
        model,
        Sensors(RandomTimes(readings), missing=missing),
        Gaussian.standardized(noise, np.array(STD)),
    )


def _vector_field(
    t: Float[Array, ""], x: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    del t
    active = jnp.square(x) / (1.0 + jnp.square(x))
    regulated = theta[:GENES] * active + jnp.roll(theta[GENES:] * active, 1)
    return _TRANSCRIPTION + regulated - _DECAY * x
