"""Methods that know the equation by its residual: BiLO and PINN, and what they share.

- `_bilo`, `_pinn`: the methods.
- `_equation`, `_equation_inverter`: the losses, and how an estimate moves.
- `_unknowns`: scalars and functions that are looked for.
- `_weight_optimizers`, `_parameter_optimizers`: the steps of weights and of unknowns.
"""
