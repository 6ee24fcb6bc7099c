"""What is public is a decision, and each name shows its use in an example that runs."""

import doctest
import importlib
import inspect
import re
from types import ModuleType

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import inojax as ij
import inojax.plot

# A name more, or one less, is a change of the interface: it goes into the changelog, too.
PUBLIC = {
    "inojax": (
        "Calibration Dataset Design Diagnostics Estimate EstimateStatus FixedTimes "
        "InverseProblem MultiStart ODEModel Observation Optima PDEModel Parameter "
        "ParameterSpace RandomTimes Sensors TrustTicket Verdict load save simulate "
    ),
    "inojax.noise": (
        "AR1 AbstractIndependentNoise AbstractNoise Gaussian LogNormal NoDensityError Poisson "
    ),
    "inojax.models": (
        "AbstractDirectSolver AbstractPDESolver Collocation Field FiniteElements Interface "
        "MethodOfLines ODESolution TotalVariation compile_seconds divergence gradient laplacian "
        "partial "
    ),
    "inojax.solvers": ("Rodas5P SolveStatus solve_ensemble "),
    "inojax.nn": (
        "ByLength Convolutional Dense FNOSettings FlaxNetwork MLP NetworkBuilder SeriesNetwork "
    ),
    "inojax.train": ("TrainLog Trainer "),
    "inojax.data": ("SignedLog Standardizer "),
    "inojax.metrics": (
        "BayesFloor CoverageCurve IdentifiabilityCard SBCRanks TARPCurve bayes_floor "
        "coverage coverage_curve identifiability laplace_covariances mean_absolute_error "
        "mean_squared_error sbc_ranks tarp "
    ),
    "inojax.methods": (
        "AbstractAmortizedMethod AbstractExactInverter AbstractInverter AbstractMethod "
        "AbstractNetworkInverter AdamParameterOptimizer AdamWeightOptimizer BiLO "
        "BiLOInverter CalibratedInverter ConformalInverter Coordinates DriftSettings "
        "GaussNewtonParameterOptimizer GaussNewtonWeightOptimizer INO INOInverter Inputs "
        "InverseMap InverseMapInverter Labels LeastSquares PINN PINNInverter Penalty "
        "Point Posterior Regression ReportedDrift ResidualDrift SequentialMonteCarlo "
        "Spread SurrogateSettings calibrate conformal invert_batch resimulate "
    ),
    "inojax.problems": (
        "boehm boehm_data fisher_kpp fitzhugh_nagumo grn heat lotka_volterra "
        "lotka_volterra_log_normal lynx_hare nonlinear_ode particles pollu robertson "
        "scalar_poisson variable_poisson "
    ),
    "inojax.plot": (
        "calibration house_style identifiability landscape losses new_figure overview "
        "pairs parameter_errors predictive profiles recovery trajectories work_precision "
    ),
}
EVERY = [f"{space}.{name}" for space, names in PUBLIC.items() for name in names.split()]
GIVEN = {"ij": ij, "jax": jax, "jnp": jnp, "jr": jr, "np": np}


def names_of(namespace: str) -> list[str]:
    module = importlib.import_module(namespace)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    )


def example_of(path: str) -> str:
    """The lines below `Example:` in a docstring, as they stand there."""
    namespace, name = path.rsplit(".", 1)
    text = inspect.getdoc(getattr(importlib.import_module(namespace), name)) or ""
    found = re.search(r"^Example:\n((?:(?:    .*)?\n?)+)", text, re.MULTILINE)
    return inspect.cleandoc(found[1]) if found else ""


@pytest.mark.parametrize("namespace", PUBLIC)
def test_what_is_public_is_listed(namespace):
    assert names_of(namespace) == sorted(PUBLIC[namespace].split())


@pytest.mark.parametrize("path", EVERY)
def test_the_example_of_every_public_name_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = example_of(path)
    assert ">>> " in text, f"{path} has no example"
    test = doctest.DocTestParser().get_doctest(f"{text}\n", dict(GIVEN), path, None, None)
    printed = []
    found = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert found.failed == 0, "".join(printed)
