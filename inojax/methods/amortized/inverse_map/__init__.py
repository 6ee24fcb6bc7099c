"""Inverse maps: networks from regular time series to parameters and covariances.

- `_method`: settings, training and inverter.
- `_series`: how a series, its spectrum and the unknowns are put to a network.
- `_examples`, `_online`: what it learns from, kept or simulated while it is trained.
- `_laplace_targets`: covariances as targets.
- `_fingerprint`: which network stored weights belong to.
"""
