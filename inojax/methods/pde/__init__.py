"""Methods that know the equation by its residual: BiLO and PINN, and what they share.

- `_bilo`, `_pinn`: the methods.
- `_equation`, `_equation_inverter`: the losses, and how an estimate moves.
- `_network_states`: what networks see of a point, and what their outputs stand for.
- `_unknowns`: scalars and functions that are looked for.
- `_weight_optimizers`, `_parameter_optimizers`: the steps of weights and of unknowns.
"""
