"""Networks that are trained once on simulations and then answer any observation.

- `_method`, `_inverter`: what all of them share, for training and for answering.
- `_encoding`, `_slots`, `_masking`: how a network sees readings.
- `_training_data`, `_familiar`: what it is trained on, and whether an observation is like that.
- `_regression`: a plain network; `ino`: surrogate and drift; `inverse_map`: series to parameters.
"""
