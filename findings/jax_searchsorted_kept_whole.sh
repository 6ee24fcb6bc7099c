#!/usr/bin/env bash
# JAX 0.12.0.1 (Python 3.12 or newer): `jnp.searchsorted`, and with it `jnp.interp` and
# `jnp.digitize`, trace to one equation `call_hi_primitive` that shows neither comparison nor loop;
# until 0.10 the program holds the bisection itself. Whoever walks a traced program for places
# where numbers become choices finds none in a table any more. What it is made of comes from
# `equation.params["_prim"].expand`. And the equation of a `lax.scan` no longer says how many of its
# operands are constants and how many are carried (`num_consts`, `num_carry` are gone).
# Seen: `searchsorted: call_hi_primitive, no scan, no comparison of the table`, `expanded: scan, le_to`,
# `scan settings: ft_in ft_out jaxpr length reverse unroll`.
# Fails if that changes.
set -euo pipefail
python=${PYTHON:-$(command -v python3.13 || command -v python3.12 || true)}
if [ -z "$python" ]; then
    echo "needs python3.12 or newer; give it as PYTHON" >&2
    exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "jax==0.12.0.1"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PY'
import jax
import jax.numpy as jnp


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for param in equation.params.values():
            if hasattr(param, "eqns"):
                yield from equations(param)


table = jnp.arange(5.0)
found = list(equations(jax.make_jaxpr(lambda t: jnp.searchsorted(table, t))(1.5)))
names = {equation.primitive.name for equation in found}
assert "call_hi_primitive" in names and not names & {"scan", "while", "lt", "le", "lt_to", "le_to"}
print("searchsorted: call_hi_primitive, no scan, no comparison of the table")
(search,) = (e for e in found if e.primitive.name == "call_hi_primitive")
inside = jax.make_jaxpr(search.params["_prim"].expand)(table, 1.5)
inner = {equation.primitive.name for equation in equations(inside)}
assert {"scan", "le_to"} <= inner, inner
print("expanded: scan, le_to")
loop = jax.make_jaxpr(lambda x: jax.lax.scan(lambda c, a: (c + a * x, c), 0.0, table))(2.0)
(scan,) = (e for e in loop.eqns if e.primitive.name == "scan")
print("scan settings:", *sorted(scan.params))
assert sorted(scan.params) == ["ft_in", "ft_out", "jaxpr", "length", "reverse", "unroll"]
PY
