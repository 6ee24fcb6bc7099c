"""The catalog: functions that return an `InverseProblem`, one equation per file, and readings."""

from ._boehm import boehm as boehm, boehm_data as boehm_data
from ._fisher_kpp import fisher_kpp as fisher_kpp
from ._fitzhugh_nagumo import fitzhugh_nagumo as fitzhugh_nagumo
from ._grn import grn as grn
from ._heat import heat as heat
from ._lotka_volterra import (
    lotka_volterra as lotka_volterra,
    lotka_volterra_log_normal as lotka_volterra_log_normal,
    lynx_hare as lynx_hare,
)
from ._nonlinear_ode import nonlinear_ode as nonlinear_ode
from ._particles import particles as particles
from ._pollu import pollu as pollu
from ._robertson import robertson as robertson
from ._scalar_poisson import scalar_poisson as scalar_poisson
from ._variable_poisson import variable_poisson as variable_poisson
