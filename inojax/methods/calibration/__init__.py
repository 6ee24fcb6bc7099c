"""What is put around an inverter: corrected intervals, and tests of what it is trusted with.

- `_held_out`: simulations that no method has seen.
- `_conformal`: intervals that hold as often as they say.
- `_calibrate`: tickets that tell what an estimate is worth.
"""
