"""Inverse maps: networks from regular time series to parameters and covariances."""
