"""Numbers about estimates: errors, calibration, and the limit that the readings set."""

from ._bayes_floor import BayesFloor as BayesFloor, bayes_floor as bayes_floor
from ._calibration import (
    CoverageCurve as CoverageCurve,
    coverage as coverage,
    coverage_curve as coverage_curve,
)
from ._errors import (
    mean_absolute_error as mean_absolute_error,
    mean_squared_error as mean_squared_error,
)
from ._identifiability import (
    IdentifiabilityCard as IdentifiabilityCard,
    identifiability as identifiability,
)
from ._information import laplace_covariances as laplace_covariances
from ._sbc import SBCRanks as SBCRanks, sbc_ranks as sbc_ranks
from ._tarp import TARPCurve as TARPCurve, tarp as tarp
