"""Networks: pure functions of arrays that know nothing of problems."""

from ._attention import ReadingAttention as ReadingAttention
from ._conditional_fno import (
    ConditionalFNO as ConditionalFNO,
    FNOSettings as FNOSettings,
    FourierBlock as FourierBlock,
)
from ._conditional_mlp import ConditionalMLP as ConditionalMLP
from ._linear import (
    apply_linear as apply_linear,
    apply_mlp as apply_mlp,
    new_linear as new_linear,
    new_mlp as new_mlp,
)
from ._response_surface import ResponseSurface as ResponseSurface, monomials as monomials
from ._spectral import SpectralConv as SpectralConv, cosine_basis as cosine_basis
from ._truncated_normal import UnitNormal as UnitNormal
