"""Simulated data: run a problem many times, keep the results, bring them to scale."""

from ._signed_log import SignedLog as SignedLog
from ._standardize import Standardizer as Standardizer
