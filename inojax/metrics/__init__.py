"""Numbers about estimates: errors, calibration, and the limit that the readings set."""

from ._bayes_floor import BayesFloor as BayesFloor, bayes_floor as bayes_floor
from ._calibration import coverage as coverage
from ._errors import (
    mean_absolute_error as mean_absolute_error,
    mean_squared_error as mean_squared_error,
)
