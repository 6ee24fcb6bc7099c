"""Forward models: differential equations with unknown parameters, and how to solve them."""

from ._calls import compile_seconds as compile_seconds
from ._ode import ODEModel as ODEModel, ODESolution as ODESolution
