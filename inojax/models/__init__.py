"""Forward models: differential equations with unknown parameters, and how to solve them."""

from ._calls import (
    compile_seconds as compile_seconds,
    compiled as compiled,
    in_calls as in_calls,
)
from ._ode import ODEModel as ODEModel, ODESolution as ODESolution
