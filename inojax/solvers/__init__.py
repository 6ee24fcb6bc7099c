"""Rosenbrock solvers on Diffrax's interface, and a driver for many trajectories at once."""

from ._batch_last import trace_field as trace_field
from ._cholesky import (
    cholesky as cholesky,
    solve_lower as solve_lower,
    solve_positive as solve_positive,
    solve_upper as solve_upper,
)
from ._elimination import (
    solve_general as solve_general,
    solve_tridiagonal as solve_tridiagonal,
)
from ._ensemble import (
    EnsembleSolution as EnsembleSolution,
    automatic_atol as automatic_atol,
    solve_ensemble as solve_ensemble,
)
from ._explicit import solve_explicit as solve_explicit
from ._rodas5p import Rodas5P as Rodas5P
from ._sparsity import dependence as dependence
from ._status import SolveStatus as SolveStatus
from ._switches import Switches as Switches
