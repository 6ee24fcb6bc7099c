"""Methods: from a problem and its simulations to an inverter."""

from ._inverter import (
    AbstractExactInverter as AbstractExactInverter,
    AbstractInverter as AbstractInverter,
    AbstractNetworkInverter as AbstractNetworkInverter,
    invert_batch as invert_batch,
)
from ._method import AbstractMethod as AbstractMethod
from ._penalty import Penalty as Penalty
from ._resimulate import resimulate as resimulate
from .amortized._method import AbstractAmortizedMethod as AbstractAmortizedMethod
from .amortized._regression import Regression as Regression
from .amortized.ino._drift import DriftSettings as DriftSettings
from .amortized.ino._drift_fields import (
    ReportedDrift as ReportedDrift,
    ResidualDrift as ResidualDrift,
)
from .amortized.ino._method import INO as INO, INOInverter as INOInverter
from .amortized.ino._surrogate import SurrogateSettings as SurrogateSettings
from .amortized.inverse_map._method import (
    InverseMap as InverseMap,
    InverseMapInverter as InverseMapInverter,
    Spread as Spread,
)
from .amortized.inverse_map._series import Inputs as Inputs, Labels as Labels
from .calibration._calibrate import (
    CalibratedInverter as CalibratedInverter,
    calibrate as calibrate,
)
from .calibration._conformal import (
    ConformalInverter as ConformalInverter,
    conformal as conformal,
)
from .exact._least_squares import LeastSquares as LeastSquares, Point as Point
from .exact._objective import Coordinates as Coordinates
from .exact._posterior import Posterior as Posterior
from .exact._sequential_monte_carlo import SequentialMonteCarlo as SequentialMonteCarlo
from .pde._bilo import BiLO as BiLO, BiLOInverter as BiLOInverter
from .pde._parameter_optimizers import (
    AdamParameterOptimizer as AdamParameterOptimizer,
    GaussNewtonParameterOptimizer as GaussNewtonParameterOptimizer,
)
from .pde._pinn import PINN as PINN, PINNInverter as PINNInverter
from .pde._weight_optimizers import (
    AdamWeightOptimizer as AdamWeightOptimizer,
    GaussNewtonWeightOptimizer as GaussNewtonWeightOptimizer,
)
