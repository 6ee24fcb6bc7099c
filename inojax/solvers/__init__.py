"""Rosenbrock solvers on Diffrax's interface, and a driver for many trajectories at once."""

from ._ensemble import solve_ensemble as solve_ensemble
from ._rodas5p import Rodas5P as Rodas5P
from ._status import SolveStatus as SolveStatus
