"""Simulated data: run a problem many times, keep the results, bring them to scale."""

from ._dataset import Dataset as Dataset, SimulationTiming as SimulationTiming
from ._manifest import describe_problem as describe_problem, differences as differences
from ._signed_log import SignedLog as SignedLog
from ._simulate import simulate as simulate
from ._standardize import Standardizer as Standardizer
