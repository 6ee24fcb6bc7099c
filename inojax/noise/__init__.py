"""Noise models: what stands between a clean solution and a reading."""

from ._ar1 import AR1 as AR1
from ._base import AbstractNoise as AbstractNoise, NoDensityError as NoDensityError
from ._gaussian import Gaussian as Gaussian
from ._independent import AbstractIndependentNoise as AbstractIndependentNoise
from ._log_normal import LogNormal as LogNormal
from ._poisson import Poisson as Poisson
