"""Air pollution chemistry: 20 species, 25 reactions, rates over fifteen decades."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import Gaussian
from ._checks import check_count, check_noise

SPECIES = (
    "NO2", "NO", "O3P", "O3", "HO2", "OH", "HCHO", "CO", "ALD", "MEO2",
    "C2O3", "CO2", "PAN", "CH3O", "HNO3", "O1D", "SO2", "SO4", "NO3", "N2O5",
)  # fmt: skip

# k1 ... k25 in min⁻¹ (one reactant) or ppm⁻¹ min⁻¹ (two).
RATES = (
    0.35, 26.6, 1.23e4, 8.6e-4, 8.2e-4, 1.5e4, 1.3e-4, 2.4e4, 1.65e4, 9.0e3,
    2.2e-2, 1.2e4, 1.88, 1.63e4, 4.8e6, 3.5e-4, 1.75e-2, 1.0e8, 4.44e11, 1.24e3,
    2.1, 5.78, 4.74e-2, 1.78e3, 3.12,
)  # fmt: skip
_TIMES = 100
_TWO_REACTANTS = (2, 3, 6, 8, 9, 10, 12, 14, 20, 23, 24)

# NO, O3, HCHO, CO, ALD and SO2 are there at the start.
_INITIAL = (0, 0.2, 0, 0.04, 0, 0, 0.1, 0.3, 0.01, 0, 0, 0, 0, 0, 0, 0, 0.007, 0, 0, 0)

# Standard deviation of each species over the prior and all output times, in ppm:
# `model.solve_ensemble(parameters.design(4096, key=jr.key(0))).states.std((0, 1))`.
STD = (
    7.25907e-03, 9.88700e-03, 1.77993e-09, 2.16317e-03, 1.36974e-07,
    8.22732e-08, 7.55902e-03, 8.27426e-03, 9.57775e-04, 1.36914e-08,
    9.28055e-09, 8.51668e-04, 1.21117e-04, 1.33062e-05, 2.92319e-03,
    2.74435e-18, 4.29532e-05, 4.29532e-05, 9.22857e-07, 3.87000e-05,
)  # fmt: skip


def pollu(*, noise: float = 1e-3, readings: int = 3, missing: float = 0.0) -> InverseProblem:
    """Recover 25 rate coefficients of air pollution chemistry from a few readings.

    A stiff standard problem (eigenvalues up to 4e11 per minute) whose parameters are far from
    all visible: use it to see what a method does with directions that data cannot settle. Each
    rate coefficient is uniform within ±50 % of its nominal value; all 20 species are read at
    random output times.

    Args:
        noise: Standard deviation of the noise, as a fraction of each species' prior predictive
            standard deviation.
        readings: Number of times, drawn from 100 equally spaced ones over an hour.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem, with times in minutes and concentrations in ppm.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Verwer (1994), SIAM J. Sci. Comput. 15(5), 1243-1250; problem `pollu` of the Test Set for
        IVP Solvers (Bari).

    Example:
        >>> problem = ij.problems.pollu()
        >>> problem.parameters.size, len(problem.channels)
        (25, 20)
    """
    check_noise(noise)
    check_count("readings", readings, most=_TIMES)
    model = ODEModel(
        _vector_field,
        np.array(_INITIAL, np.float64),
        times=np.linspace(0.6, 60.0, _TIMES),
        states=SPECIES,
        rtol=1e-6,
        # Far above O1D (4e-18) and O3P (4e-9), yet both come out to 1e-6: they only follow the
        # others, in a quasi-equilibrium that an L-stable method holds without small steps.
        atol=1e-10,
        time_unit="min",
        state_unit="ppm",
    )
    sensors = Sensors(RandomTimes(readings), missing=missing)
    scatter = Gaussian.standardized(noise, np.array(STD))
    return InverseProblem("pollu", _parameters(), model, sensors, scatter)


def _parameters() -> ParameterSpace:
    import numpyro.distributions as dist

    return ParameterSpace(
        tuple(
            Parameter(
                f"k{number}",
                dist.Uniform(0.5 * rate, 1.5 * rate),
                "ppm^-1 min^-1" if number in _TWO_REACTANTS else "min^-1",
            )
            for number, rate in enumerate(RATES, start=1)
        )
    )


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], k: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    # Scalars one by one, not a stoichiometric matrix: most of its entries are zero, and an
    # ensemble solver that puts the batch last turns each line into one vector operation.
    del t
    r1 = k[0] * y[0]  # NO2 -> NO + O3P
    r2 = k[1] * y[1] * y[3]  # NO + O3 -> NO2
    r3 = k[2] * y[4] * y[1]  # HO2 + NO -> NO2 + OH
    r4 = k[3] * y[6]  # HCHO -> 2 HO2 + CO
    r5 = k[4] * y[6]  # HCHO -> CO
    r6 = k[5] * y[6] * y[5]  # HCHO + OH -> HO2 + CO
    r7 = k[6] * y[8]  # ALD -> MEO2 + HO2 + CO
    r8 = k[7] * y[8] * y[5]  # ALD + OH -> C2O3
    r9 = k[8] * y[10] * y[1]  # C2O3 + NO -> NO2 + MEO2 + CO2
    r10 = k[9] * y[10] * y[0]  # C2O3 + NO2 -> PAN
    r11 = k[10] * y[12]  # PAN -> C2O3 + NO2
    r12 = k[11] * y[9] * y[1]  # MEO2 + NO -> CH3O + NO2
    r13 = k[12] * y[13]  # CH3O -> HCHO + HO2
    r14 = k[13] * y[0] * y[5]  # NO2 + OH -> HNO3
    r15 = k[14] * y[2]  # O3P -> O3
    r16 = k[15] * y[3]  # O3 -> O1D
    r17 = k[16] * y[3]  # O3 -> O3P
    r18 = k[17] * y[15]  # O1D -> 2 OH
    r19 = k[18] * y[15]  # O1D -> O3P
    r20 = k[19] * y[16] * y[5]  # SO2 + OH -> SO4 + HO2
    r21 = k[20] * y[18]  # NO3 -> NO
    r22 = k[21] * y[18]  # NO3 -> NO2 + O3P
    r23 = k[22] * y[0] * y[3]  # NO2 + O3 -> NO3
    r24 = k[23] * y[18] * y[0]  # NO3 + NO2 -> N2O5
    r25 = k[24] * y[19]  # N2O5 -> NO3 + NO2
    return jnp.stack(
        [
            r2 + r3 + r9 + r11 + r12 + r22 + r25 - r1 - r10 - r14 - r23 - r24,
            r1 + r21 - r2 - r3 - r9 - r12,
            r1 + r17 + r19 + r22 - r15,
            r15 - r2 - r16 - r17 - r23,
            2.0 * r4 + r6 + r7 + r13 + r20 - r3,
            r3 + 2.0 * r18 - r6 - r8 - r14 - r20,
            r13 - r4 - r5 - r6,
            r4 + r5 + r6 + r7,
            -r7 - r8,
            r7 + r9 - r12,
            r8 + r11 - r9 - r10,
            r9,
            r10 - r11,
            r12 - r13,
            r14,
            r16 - r18 - r19,
            -r20,
            r20,
            r23 + r25 - r21 - r22 - r24,
            r24 - r25,
        ]
    )
