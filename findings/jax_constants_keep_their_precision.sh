#!/usr/bin/env bash
# JAX 0.10.2: a NumPy array of float64 that a jitted function closes over is cached in the precision
# of its first use. After one call in 32 bits (`jax.enable_x64(False)`), and as long as that function
# lives, nothing that uses the same array object works in 64 bits: another function that closes over
# it cannot be compiled ("Cannot lower jaxpr with verifier errors"), and where it is an argument the
# compiled program is handed a float32 buffer ("RuntimeProgramInputMismatch ... expected parameter 1
# of size 24 ... but got buffer with incompatible size 12"). Neither message names array or precision.
# A copy of the array works. Whoever switches precision by context closes over no NumPy arrays.
# Seen: `another function: verifier errors`, `a copy: float64`,
# `an argument: RuntimeProgramInputMismatch`, `the first one gone: float64`.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.10.2" "jaxlib==0.10.2"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import numpy as np


def in_64_bits(function, *arguments):
    with jax.enable_x64(True):
        try:
            return str(function(np.ones(3), *arguments).dtype)
        except (ValueError, RuntimeError) as error:
            words = "verifier errors", "RuntimeProgramInputMismatch"
            return next(word for word in words if word in str(error))


array = np.arange(3.0) + 0.1
copy = array.copy()
first = jax.jit(lambda x: x + array)
with jax.enable_x64(False):
    assert first(np.ones(3)).dtype == np.float32
found = {
    "another function": in_64_bits(jax.jit(lambda x: 2.0 * x * array)),
    "a copy": in_64_bits(jax.jit(lambda x: 2.0 * x * copy)),
    "an argument": in_64_bits(jax.jit(lambda x, given: 2.0 * x * given), array),
}
del first
found["the first one gone"] = in_64_bits(jax.jit(lambda x: 2.0 * x * array))
for name, dtype in found.items():
    print(f"{name}: {dtype}")
assert list(found.values()) == [
    "verifier errors", "float64", "RuntimeProgramInputMismatch", "float64"
], found
PY
