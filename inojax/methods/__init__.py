"""Methods: from a problem and its simulations to an inverter."""

from ._amortized import AbstractAmortizedMethod as AbstractAmortizedMethod
from ._base import (
    AbstractInverter as AbstractInverter,
    AbstractNetworkInverter as AbstractNetworkInverter,
    invert_batch as invert_batch,
    resimulate as resimulate,
)
from ._bilo import BiLO as BiLO, BiLOInverter as BiLOInverter, LocalSolution as LocalSolution
from ._conformal import (
    ConformalInverter as ConformalInverter,
    conformal as conformal,
    load_conformal as load_conformal,
)
from ._descent import (
    AbstractDescent as AbstractDescent,
    AdamDescent as AdamDescent,
    GaussNewtonDescent as GaussNewtonDescent,
)
from ._drift_fields import (
    AbstractDriftField as AbstractDriftField,
    ReportedDrift as ReportedDrift,
    ResidualDrift as ResidualDrift,
)
from ._ino import INO as INO, INOInverter as INOInverter
from ._ino_drift import DriftSettings as DriftSettings
from ._ino_surrogate import SurrogateSettings as SurrogateSettings
from ._inverse_map import (
    InverseMap as InverseMap,
    InverseMapInverter as InverseMapInverter,
    Spread as Spread,
)
from ._least_squares import (
    LeastSquares as LeastSquares,
    LeastSquaresInverter as LeastSquaresInverter,
    Point as Point,
)
from ._objective import Coordinates as Coordinates, Penalty as Penalty
from ._pinn import PINN as PINN, PINNInverter as PINNInverter, PINNSolution as PINNSolution
from ._posterior import Posterior as Posterior, PosteriorInverter as PosteriorInverter
from ._regression import Regression as Regression, RegressionInverter as RegressionInverter
from ._search import (
    AbstractSearch as AbstractSearch,
    AdamSearch as AdamSearch,
    GaussNewtonSearch as GaussNewtonSearch,
)
from ._sequential_monte_carlo import (
    SequentialMonteCarlo as SequentialMonteCarlo,
    SequentialMonteCarloInverter as SequentialMonteCarloInverter,
)
from ._series import Inputs as Inputs, Labels as Labels
from ._storage import save as save
from ._vetting import (
    VettedInverter as VettedInverter,
    load_vetted as load_vetted,
    vet as vet,
)
