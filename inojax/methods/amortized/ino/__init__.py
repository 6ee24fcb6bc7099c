"""INO: a surrogate of the solver, and a drift that carries parameters to the answer."""
