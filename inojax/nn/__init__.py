"""Networks: pure functions of arrays that know nothing of problems."""

from ._attention import ReadingAttention as ReadingAttention
from ._conditional_fno import (
    ConditionalFNO as ConditionalFNO,
    FNOSettings as FNOSettings,
    FourierBlock as FourierBlock,
)
from ._conditional_mlp import ConditionalMLP as ConditionalMLP
from ._linear import (
    MLP as MLP,
    Linear as Linear,
)
from ._response_surface import ResponseSurface as ResponseSurface, monomials as monomials
from ._spectral import SpectralConv as SpectralConv, cosine_basis as cosine_basis
from ._truncated_normal import UnitNormal as UnitNormal
