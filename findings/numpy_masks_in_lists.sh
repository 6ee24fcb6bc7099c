#!/usr/bin/env bash
# NumPy 2.4.6: `np.asarray` of a list of masked arrays gives a plain array without a word, and what
# was masked is data again. (A masked constant in a list of numbers at least warns and becomes NaN;
# `np.ma.asarray` of the same list keeps the masks.)
# Seen: `plain [[1.0, -999.0], [2.0, 3.0]]`, `ma.asarray masked 1`.
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "numpy==2.4.6"
"$folder/venv/bin/python" -W error - <<'PY'
import numpy as np

rows = [np.ma.masked_values([1.0, -999.0], -999.0), np.ma.masked_values([2.0, 3.0], -999.0)]
plain = np.asarray(rows)
print("plain", plain.tolist())
print("ma.asarray masked", np.ma.count_masked(np.ma.asarray(rows)))
assert plain.tolist() == [[1.0, -999.0], [2.0, 3.0]] and not isinstance(plain, np.ma.MaskedArray)
assert np.ma.count_masked(np.ma.asarray(rows)) == 1
PY
