"""What differs between two manifests, in words, and what differs in spelling only."""

import math
from typing import Any, NamedTuple

from ._parts import Part

# Far above what reordering float64 arithmetic changes, far below any change of a constant.
_RELATIVE = 1e-9
# A component that is a small difference of large terms carries their rounding error.
_CANCELLATION = 1e-14
_FEW = 3  # constants that are named one by one
_SHORT = 60  # characters of a value that is shown

Manifest = dict[str, Any]


class Comparison(NamedTuple):
    """How two manifests differ, a phrase for each difference.

    Attributes:
        changed: What is another thing.
        rewritten: Functions of another program whose values at a few places are the same.
        unseen: Functions whose programs cannot be compared, but whose values are the same.
    """

    changed: list[str]
    rewritten: list[str]
    unseen: list[str]


def compare(stored: Manifest, wanted: Manifest) -> Comparison:
    """Compare two manifests.

    Args:
        stored: The manifest found.
        wanted: The manifest of the call at hand.

    Returns:
        All differences, most telling first.
    """
    found = Comparison([], [], [])
    versions = [manifest.get("jax", wanted.get("jax")) for manifest in (stored, wanted)]
    for name, label in _labels(stored, wanted).items():
        old: Any = stored.get(name)
        new: Any = wanted.get(name)
        if _is_function(old) and _is_function(new):
            _compare_functions(found, label, old, new, versions)
        elif _is_function(old) or _is_function(new):
            found.changed.append(label)
        elif phrase := _difference(label, old, new):
            found.changed.append(phrase)
    if not (found.changed or found.rewritten):
        found.changed.extend(_of_other_values(stored, wanted))
    return found


def _is_function(part: Any) -> bool:
    return isinstance(part, dict) and "program" in part


def _of_other_values(stored: Manifest, wanted: Manifest) -> list[str]:
    """Functions of the same program that give other values all the same."""
    # Where something else differs they may be evaluated at other places.
    return [
        f"{label}: its values differ, at the same program"
        for name, label in _labels(stored, wanted).items()
        if _is_function(wanted.get(name))
        and not _same(stored[name]["values"], wanted[name]["values"])
    ]


def differences(stored: Manifest, wanted: Manifest) -> list[str]:
    """Name what differs between two manifests, in words, most telling first.

    Args:
        stored: The manifest found.
        wanted: The manifest of the call at hand.

    Returns:
        One phrase for each difference; empty where the runs are the same.
    """
    found = compare(stored, wanted)
    return found.changed + found.rewritten


# Not `thetas`: they follow from the rest. Where they alone differ, the sampler has another
# version, and the stored design is the one to finish.
_LABELS = {
    "version": "format version",
    "problem": "problem name",
    "n": "`n`",
    "chunk_size": "`chunk_size` (after balancing)",
    "design": "`design`",
    "key": "`key`",
    "parameters": "parameter names",
    "units": "parameter units",
    "priors": "priors",
    "prior_maps": "priors",
    "states": "state names",
    "times": "output times",
    "initial_time": "initial time",
    "initial_state": "initial state",
    "vector_field": "vector field",
    "breakpoints": "breakpoints",
    "coordinates": "coordinates",
    "domain": "domain",
    "places": "points of readings",
    "ansatz": "ansatz",
    "residual": "residual",
    "solution": "values of the solver",
    "fields": "unknown functions",
    "transform": "transform of the unknown function",
    "interfaces": "interfaces",
    "jumps": "conditions at interfaces",
    "coupling": "total variation of unknown functions",
    "solver": "solver settings",
    "channels": "channels",
    "schedule": "times of the sensors",
    "draws": "drawing of times by the sensors",
    "missing": "share of missing readings",
    "observable": "observable",
    "noise": "noise",
    "fixed": "fixed parameters",
    "collocation": "collocation points",
}


def _labels(stored: Manifest, wanted: Manifest) -> dict[str, str]:
    """The label of each entry of either manifest that counts."""
    found = {}
    for name, label in _LABELS.items():
        numbered = [key for key in (*wanted, *stored) if key.rstrip("0123456789") == name]
        for key in numbered:
            found[key] = f"{label} {key.removeprefix(name)}".strip()
    return found


def _compare_functions(
    found: Comparison, label: str, stored: Part, wanted: Part, versions: list[Any]
) -> None:
    same = stored.get("program") == wanted["program"]
    close = _same(stored.get("values"), wanted["values"])
    if same and not wanted["callbacks"]:
        return
    if not close:
        found.changed.append(f"{label}: {_words(stored, wanted)}")
    elif wanted["callbacks"]:
        found.unseen.append(f"{label}: it calls back into Python, where no trace can look")
    elif versions[0] != versions[1] and stored["constants"] == wanted["constants"]:
        why = f"JAX {versions[0]} traced another program than JAX {versions[1]} does"
        found.unseen.append(f"{label}: {why}")
    else:
        found.rewritten.append(f"{label}: {_words(stored, wanted)}")


def _words(stored: Part, wanted: Part) -> str:
    """What differs between two programs."""
    old, new = stored["constants"], wanted["constants"]
    arrays = _other_arrays(old["arrays"], new["arrays"])
    if arrays:
        return f"its constants differ: {arrays}"
    if stored["operations"] != wanted["operations"]:
        return "its program differs"
    gone = [value for value in old["numbers"] if value not in new["numbers"]]
    come = [value for value in new["numbers"] if value not in old["numbers"]]
    if len(gone) == len(come) and 0 < len(gone) <= _FEW:
        pairs = ", ".join(f"{b} where {a} is stored" for a, b in zip(gone, come, strict=True))
        return f"its constants differ: {pairs}"
    if gone or come:
        return f"its constants differ: {max(len(gone), len(come))} numbers have other values"
    return "its program differs"


def _other_arrays(stored: list[str], wanted: list[str]) -> str:
    """Which shapes of arrays have other values; nothing where there are arrays of other shapes."""
    gone, come = (
        sorted(text.rsplit(" ", 1)[0] for text in here if text not in there)
        for here, there in ((stored, wanted), (wanted, stored))
    )
    if gone != come or not gone:
        return ""
    shapes = [f"an array of shape {shape} has other values" for shape in sorted(set(gone))]
    return ", ".join(shapes)


def _difference(label: str, stored: Any, wanted: Any) -> str:
    if _same(stored, wanted):
        return ""
    if isinstance(stored, dict) and isinstance(wanted, dict):
        names = [name for name in wanted if not _same(stored.get(name), wanted[name])]
        changes = (f"{name} {wanted[name]} where {stored.get(name)} is stored" for name in names)
        return f"{label} ({', '.join(changes)})" if names else label
    short = all(len(repr(value)) <= _SHORT for value in (stored, wanted))
    return f"{label} ({wanted!r} where {stored!r} is stored)" if short else label


def _same(stored: Any, wanted: Any) -> bool:
    """Equality, with room for rounding between floats; rows of numbers share their scale."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        return stored.keys() == wanted.keys() and all(_same(stored[k], wanted[k]) for k in wanted)
    if isinstance(wanted, list) and isinstance(stored, list):
        if len(stored) != len(wanted):
            return False
        if not all(isinstance(value, float) for value in [*stored, *wanted]):
            return all(map(_same, stored, wanted))
        scale = max((abs(value) for value in wanted if math.isfinite(value)), default=0.0)
        return all(_close(a, b, scale) for a, b in zip(stored, wanted, strict=True))
    if isinstance(wanted, float) and isinstance(stored, float):
        return _close(stored, wanted, 0.0)
    return stored == wanted


def _close(stored: float, wanted: float, scale: float) -> bool:
    return math.isclose(stored, wanted, rel_tol=_RELATIVE, abs_tol=_CANCELLATION * scale)
