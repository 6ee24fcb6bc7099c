"""Simulated data: run a problem many times, keep the results, bring them to scale."""

from ._compare import compare as compare, differences as differences
from ._dataset import Dataset as Dataset, SimulationTiming as SimulationTiming
from ._manifest import (
    describe_measurement as describe_measurement,
    describe_problem as describe_problem,
)
from ._second_look import (
    Trajectories as Trajectories,
    few_of as few_of,
    probed as probed,
    remember as remember,
    settle as settle,
    some_of as some_of,
)
from ._signed_log import SignedLog as SignedLog
from ._simulate import simulate as simulate
from ._standardize import Standardizer as Standardizer
