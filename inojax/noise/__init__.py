"""Noise models: what stands between a clean solution and a reading."""

from ._base import AbstractNoise as AbstractNoise, NoDensityError as NoDensityError
from ._gaussian import Gaussian as Gaussian
from ._independent import AbstractIndependentNoise as AbstractIndependentNoise
from ._log_normal import LogNormal as LogNormal
