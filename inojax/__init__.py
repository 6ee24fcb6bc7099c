"""Inverse problems of differential equations: simulate, train, invert, and know the limit."""

from . import (
    data as data,
    methods as methods,
    metrics as metrics,
    models as models,
    nn as nn,
    noise as noise,
    problems as problems,
    solvers as solvers,
    train as train,
)
from ._estimate import (
    Diagnostics as Diagnostics,
    Estimate as Estimate,
    Optima as Optima,
)
from ._estimate_status import EstimateStatus as EstimateStatus
from ._inverse_problem import InverseProblem as InverseProblem
from ._multi_start import MultiStart as MultiStart
from ._observation import Observation as Observation
from ._parameters import (
    Design as Design,
    Parameter as Parameter,
    ParameterSpace as ParameterSpace,
)
from ._sensors import FixedTimes as FixedTimes, RandomTimes as RandomTimes, Sensors as Sensors
from ._trust import Calibration as Calibration, TrustTicket as TrustTicket, Verdict as Verdict
from .data._dataset import Dataset as Dataset
from .data._simulate import simulate as simulate
from .methods._storage import load as load, save as save
from .models._ode import ODEModel as ODEModel
from .models._pde import PDEModel as PDEModel

__version__ = "0.2.0"
