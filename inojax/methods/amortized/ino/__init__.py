"""INO: a surrogate of the solver, and a drift that carries parameters to the answer.

- `_method`: both stages, `fit` to inverter.
- `_surrogate`: the operator that stands in for the solver.
- `_drift`: the network that moves parameters, and what it is trained towards.
- `_drift_fields`: the displacements that are its targets.
"""
