"""Networks: pure functions of arrays that know nothing of problems."""

from ._conditional_fno import FNOSettings as FNOSettings
from ._flax import FlaxNetwork as FlaxNetwork
from ._linear import MLP as MLP
from ._series import (
    ByLength as ByLength,
    Convolutional as Convolutional,
    Dense as Dense,
    NetworkBuilder as NetworkBuilder,
    SeriesNetwork as SeriesNetwork,
)
