"""Inference on the real solver: least squares, NUTS and tempering, and what they share.

- `_least_squares`: many starts, Laplace mixture, importance weights.
- `_posterior`: the No-U-Turn sampler (NumPyro).
- `_sequential_monte_carlo`: tempered populations.
- `_objective`: the negative log posterior with its derivatives, which all of them take.
- `_levenberg_marquardt`, `_rounds`: the minimizer, and how many starts it takes.
- `_laplace_mixture`, `_linear_posterior`, `_importance`: from optima to weighted samples.
- `_diagnostics`: whether chains agree.
"""
