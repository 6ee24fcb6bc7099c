"""Dimers of STAT5A and STAT5B after a pulse of Epo, measured by mass spectrometry."""

import importlib.resources

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._parameters import Parameter, ParameterSpace
from .._sensors import AbstractTimes, FixedTimes, RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import Gaussian
from ._checks import check_count

MINUTES = (
    0.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 120.0, 160.0, 200.0,
    240.0,
)  # fmt: skip

_RATES = (
    "Epo_degradation", "k_exp_hetero", "k_exp_homo", "k_imp_hetero", "k_imp_homo", "k_phos",
)  # fmt: skip
_CHANNELS = ("pSTAT5A_rel", "pSTAT5B_rel", "rSTAT5A_rel")

_EPO = 1.25e-7  # initial concentration
_TOTAL, _SHARE_A = 207.6, 0.693  # STAT5 at the start, and its share of STAT5A
_CYTOPLASM, _NUCLEUS = 1.4, 0.45  # volumes
_SPECIFICITY = 0.107  # weight with which the antibody binds STAT5A; the rest is STAT5B's


def boehm(*, readings: int | None = None, missing: float = 0.0) -> InverseProblem:
    """Recover six rates of STAT5 dimerization, and the noise, from three ratios of peptides.

    A benchmark of systems biology with measured data, `boehm_data`. Epo, which decays, makes
    STAT5A and STAT5B phosphorylate and pair; the three dimers enter the nucleus and leave it as
    monomers. The readings are percentages, ratios of sums of states. Stiff where a rate is large,
    with parameters that the data hardly determine: use it for fits from many starts, for profiles
    and for posteriors along valleys. All nine unknowns are log-uniform on [1e-5, 1e5].

    Args:
        readings: Number of times, drawn from the 16 measured ones; all of them by default.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem, with times in minutes and readings in percent.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Boehm et al. (2014), J. Proteome Res. 13(12), doi 10.1021/pr5006923, as stated in the
        PEtab benchmark collection, Boehm_JProteomeRes2014.

    Example:
        >>> problem = ij.problems.boehm()
        >>> problem.parameters.size, len(problem.channels)
        (9, 3)
    """
    import numpyro.distributions as dist

    if readings is not None:
        check_count("readings", readings, most=len(MINUTES))

    levels = tuple(f"sd_{channel}" for channel in _CHANNELS)
    prior = dist.LogUniform(1e-5, 1e5)
    model = ODEModel(
        _vector_field,
        np.array([_TOTAL * _SHARE_A, _TOTAL * (1.0 - _SHARE_A), 0, 0, 0, 0, 0, 0]),
        times=np.array(MINUTES),
        states=("STAT5A", "STAT5B", "pApB", "pApA", "pBpB", "nucpApA", "nucpApB", "nucpBpB"),
        # Dimers with a fast import stay near 1e-4 and are read in ratios to the others.
        rtol=1e-8,
        atol=1e-10,
        time_unit="min",
    )
    times: AbstractTimes = FixedTimes(MINUTES) if readings is None else RandomTimes(readings)
    return InverseProblem(
        "boehm",
        ParameterSpace(tuple(Parameter(name, prior) for name in (*_RATES, *levels))),
        model,
        Sensors(times, _CHANNELS, missing, _observable),
        Gaussian(levels),
    )


def boehm_data() -> Observation:
    """Phosphorylated shares and the share of STAT5A, measured up to four hours after Epo.

    Returns:
        16 readings of each, for `boehm`, in percent.

    Source:
        As `boehm`: the collection's measurements of the same name.

    Example:
        >>> observation = ij.problems.boehm_data()
        >>> int(observation.mask.sum())
        48
    """
    data = importlib.resources.files("inojax.problems") / "_data" / "boehm.csv"
    with importlib.resources.as_file(data) as path:
        return Observation.from_csv(path, boehm())


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    a, b, ab, aa, bb, naa, nab, nbb = (y[index] for index in range(8))
    decay, exp_hetero, exp_homo, imp_hetero, imp_homo, phos = (theta[index] for index in range(6))
    rate = phos * _EPO * jnp.exp(-decay * t)
    # Amounts per minute: pairs form and enter the nucleus, and come back apart.
    pair_aa, pair_ab, pair_bb = (_CYTOPLASM * rate * pair for pair in (a * a, a * b, b * b))
    in_aa, in_bb = (_CYTOPLASM * imp_homo * pair for pair in (aa, bb))
    out_aa, out_bb = (_NUCLEUS * exp_homo * pair for pair in (naa, nbb))
    in_ab, out_ab = _CYTOPLASM * imp_hetero * ab, _NUCLEUS * exp_hetero * nab
    return jnp.stack(
        [
            (2.0 * out_aa + out_ab - 2.0 * pair_aa - pair_ab) / _CYTOPLASM,
            (2.0 * out_bb + out_ab - 2.0 * pair_bb - pair_ab) / _CYTOPLASM,
            (pair_ab - in_ab) / _CYTOPLASM,
            (pair_aa - in_aa) / _CYTOPLASM,
            (pair_bb - in_bb) / _CYTOPLASM,
            (in_aa - out_aa) / _NUCLEUS,
            (in_ab - out_ab) / _NUCLEUS,
            (in_bb - out_bb) / _NUCLEUS,
        ]
    )


def _observable(
    y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " channel"]:
    """Percentages of phosphorylated STAT5A and STAT5B, and of STAT5A in all STAT5.

    Only the cytoplasm is measured, with one antibody that binds the two with different weights;
    a mixed dimer comes along with either.
    """
    del theta
    a, b, ab = y[0], y[1], y[2]
    aa, bb = 2.0 * y[3], 2.0 * y[4]  # molecules in dimers of one kind
    s, r = _SPECIFICITY, 1.0 - _SPECIFICITY
    return 100.0 * jnp.stack(
        [
            (ab + s * aa) / (ab + s * a + s * aa),
            (ab + r * bb) / (ab + r * b + r * bb),
            (ab + s * a + s * aa) / (2.0 * ab + s * (a + aa) + r * (b + bb)),
        ]
    )
