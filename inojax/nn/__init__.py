"""Networks: pure functions of arrays that know nothing of problems."""

from ._attention import ReadingAttention as ReadingAttention
from ._conditional_fno import (
    ConditionalFNO as ConditionalFNO,
    FNOSettings as FNOSettings,
    FourierBlock as FourierBlock,
)
from ._conditional_mlp import ConditionalMLP as ConditionalMLP
from ._flax import FlaxNetwork as FlaxNetwork
from ._jet import Jet as Jet, all_pairs as all_pairs
from ._linear import (
    MLP as MLP,
    Linear as Linear,
)
from ._local_operator import LocalOperator as LocalOperator
from ._normal import Normal as Normal
from ._response_surface import ResponseSurface as ResponseSurface, monomials as monomials
from ._series import (
    ByLength as ByLength,
    Convolutional as Convolutional,
    Dense as Dense,
    NetworkBuilder as NetworkBuilder,
    SeriesNetwork as SeriesNetwork,
    published_convolutional as published_convolutional,
    published_dense as published_dense,
)
from ._spectral import SpectralConv as SpectralConv, cosine_basis as cosine_basis
from ._truncated_normal import UnitNormal as UnitNormal
