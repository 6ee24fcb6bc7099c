"""Forward models: differential equations with unknown parameters, and how to solve them."""

from ._calls import compile_seconds as compile_seconds
from ._collocation import Collocation as Collocation
from ._derivatives import (
    divergence as divergence,
    gradient as gradient,
    laplacian as laplacian,
    partial as partial,
)
from ._field import Field as Field, TotalVariation as TotalVariation
from ._finite_elements import FiniteElements as FiniteElements
from ._interface import Interface as Interface
from ._method_of_lines import MethodOfLines as MethodOfLines
from ._ode_solution import ODESolution as ODESolution
from ._pde_solver import (
    AbstractDirectSolver as AbstractDirectSolver,
    AbstractPDESolver as AbstractPDESolver,
)
