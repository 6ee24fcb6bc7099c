"""Sloppy directions in sentences that a scientist can act on."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ._probe import Probe
from ._sloppy import NO_CHANGE, VISIBLE_FROM, Group, Sloppy, is_invisible

# The largest exponent; tried in this order of simplicity, and the first that holds is told.
_FACTORS = (1, 2, 3, 4)
# An exponent that is rounded to a simple one is that close to it; `is_invisible` then decides.
_ROUNDING = 0.05
# Standard deviations by which readings change, all over the prior, with a parameter that they do
# not depend on; and with one that they hardly see. The solver's tolerance leaves less open.
_SEEN_IF_BLIND, _SEEN = 0.01, 3.0
# Parameters of a mix that are named.
_NAMED = 6


class View(NamedTuple):
    """The cases in the coordinates that sentences are about.

    Attributes:
        names: Name of each parameter.
        units: Unit of each parameter; only parameters of one unit can be added.
        thetas: Physical values of each case.
        scale: Prior standard deviation of each parameter, of its logarithm if `logarithmic`.
        information: Fisher information of each case for one of these standard deviations.
        width: Expected posterior over prior standard deviation of each parameter.
        logarithmic: Whether directions multiply parameters rather than shift them.
        probe: Solves again at other parameters: whether it is so beyond the derivatives. Without
            it they are taken at their word.
        members: Positions of the parameters among those of the problem.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    thetas: Float[np.ndarray, "case parameter"]
    scale: Float[np.ndarray, " parameter"]
    information: Float[np.ndarray, "case parameter parameter"]
    width: Float[np.ndarray, " parameter"]
    logarithmic: bool
    probe: Probe | None = None
    members: tuple[int, ...] | None = None

    def among(self, members: tuple[int, ...]) -> "View":
        """The same for a few parameters, the others known."""
        index = list(members)
        return View(
            tuple(self.names[i] for i in index),
            tuple(self.units[i] for i in index),
            self.thetas[:, index],
            self.scale[index],
            self.information[:, index][:, :, index],
            self.width[index],
            self.logarithmic,
            self.probe,
            members if self.members is None else tuple(self.members[i] for i in index),
        )

    def jump_of_one(self) -> float:
        """How far a reading changes while the only parameter goes through its prior."""
        if self.probe is None or self.members is None:
            return 0.0
        return self.probe.along(self.members[0])

    def jump_along(self, exponents: Float[np.ndarray, " parameter"]) -> float:
        """The same while the parameters move together, by one standard deviation of the prior."""
        if self.probe is None or self.members is None:
            return 0.0
        move = np.zeros(self.probe.thetas.shape[1])
        move[list(self.members)] = exponents / np.max(np.abs(exponents / self.scale))
        return self.probe.together(move, logarithmic=self.logarithmic)


def sentences(view: View, sloppy: Sloppy) -> tuple[str, ...]:
    """Say what the readings do not see.

    Args:
        view: The cases.
        sloppy: Their invisible directions.

    Returns:
        Sentences, those about single parameters last.
    """
    groups = sorted(sloppy.groups, key=lambda group: (-len(group.members), group.members))
    said = [line for group in groups for line in _about(view, group)]
    # What no formula explains may still be one parameter with traces of many.
    alone = [i for i in sloppy.mix if view.width[i] >= VISIBLE_FROM][: sloppy.mixed]
    said += [_alone(view.among((i,))) for i in alone]
    mixed = sloppy.mixed - len(alone)
    if mixed:
        named = [view.names[i] for i in sloppy.mix if i not in alone]
        start = "One more direction is" if mixed == 1 else f"{mixed} more directions are"
        what = f", mixing {_list(named[:_NAMED])}" if named else ""
        more = " and others" if len(named) > _NAMED else ""
        said.append(f"{start} hardly visible{what}{more}.")
    return tuple(said)


def _about(view: View, group: Group) -> list[str]:
    inside = view.among(group.members)
    if len(group.members) == 1:
        return [_alone(inside)]
    count = len(group.members) - len(group.supports)
    formula = _constant_formula(inside) if count == 1 else None
    moves = [_constant_move(view.among(support)) for support in group.supports]
    lines = [line for line in moves if line is not None]
    if formula is not None and len(group.members) == 2 and lines:
        return [f"{lines[0]}: only {formula} is visible."]
    of = f"Of {_list(inside.names)} only"
    if formula is not None:  # the moves follow from it
        return [f"{of} one combination can be seen: {formula}."]
    if count == 0:
        return [f"{_list(inside.names)} are hardly visible."]
    if count == 1:
        lines.insert(0, f"{of} one combination can be seen: {_changing_formula(inside)}")
    else:
        lines.insert(0, f"{of} {count} combinations can be seen")
    return [f"{line}." for line in lines]


def _alone(view: View) -> str:
    (name,) = view.names
    blind = np.mean(view.information) < NO_CHANGE
    jump = view.jump_of_one()
    width = 100.0 * float(view.width[0])
    if jump > (_SEEN_IF_BLIND if blind else _SEEN):
        return (
            f"{name} is hardly visible to derivatives, but readings change by up to {jump:.2g} "
            "standard deviations while it goes through its prior, as by a switch: what they tell "
            "of it is more than stands here, and `SequentialMonteCarlo` needs no derivatives."
        )
    if blind:
        return f"{name} is invisible: no reading depends on it."
    return f"{name} is hardly visible: its posterior is {width:.0f} % of the prior's width."


def _constant_move(view: View) -> str | None:
    """The one invisible direction among some parameters, if it is the same in all cases."""
    covariance = np.linalg.inv(view.information + np.eye(len(view.names))).mean(axis=0)
    direction = np.linalg.eigh(covariance)[1][:, -1]
    exact = direction * view.scale
    for exponents in _simple(exact):
        move = exponents / view.scale
        if is_invisible(view.information, move[:, None]):
            unit = move / np.linalg.norm(move)
            change = np.einsum("i,cij,j->c", unit, view.information, unit).mean()
            end = "the readings hardly change"
            if change < NO_CHANGE:
                jump = view.jump_along(exponents)
                still = jump <= _SEEN_IF_BLIND
                end = "no reading changes" if still else f"readings change by steps ({jump:.2g} sd)"
            return f"{_moved(view, exponents)}, and {end}"
    return None


def _constant_formula(view: View) -> str | None:
    """The one visible combination, if simple exponents hold in all cases."""
    covariance = np.linalg.inv(view.information + np.eye(len(view.names))).mean(axis=0)
    exact = np.linalg.eigh(covariance)[1][:, 0] / view.scale
    for exponents in _simple(exact):
        if _explains(view, np.tile(exponents, (len(view.thetas), 1))):
            return _formula(view, exponents)
    return None


def _changing_formula(view: View) -> str:
    """The one visible combination, if no simple exponents hold in all cases."""
    local = np.linalg.eigh(view.information)[1][..., -1] / view.scale
    found = _with_a_sum(view, local) if view.logarithmic else None
    return _varying(view, local) if found is None else found


def _explains(view: View, gradient: Float[np.ndarray, "case parameter"]) -> bool:
    """Whether all moves that leave a combination unchanged are invisible."""
    dual = (gradient * view.scale)[..., None]
    orthogonal = np.linalg.svd(dual)[0][..., 1:]
    return is_invisible(view.information, orthogonal)


def _with_a_sum(view: View, local: Float[np.ndarray, "case parameter"]) -> str | None:
    """A product of powers and of one sum of parameters, such as k * a / (a + b).

    The gradient of its logarithm is p + q σ with constant p and q, σ being each parameter's
    share in the sum. The p and q that lie closest to the gradients seen are rounded and tried.
    """
    n = len(view.names)
    unit = local / np.linalg.norm(local, axis=1, keepdims=True)
    across = np.eye(n) - unit[:, :, None] * unit[:, None, :]
    for size in range(2, n + 1):
        for members in itertools.combinations(range(n), size):
            if len({view.units[i] for i in members}) > 1:
                continue
            shares = np.zeros_like(view.thetas)
            shares[:, members] = view.thetas[:, members]
            shares /= shares.sum(axis=1, keepdims=True)
            system = np.concatenate([across, across @ shares[..., None]], axis=2)
            best = np.linalg.svd(system.reshape(-1, n + 1))[2][-1]
            if abs(best[-1]) < _ROUNDING * np.abs(best).max():
                continue
            power = np.round(2.0 * best[:-1] / best[-1]) / 2.0
            # Of few cases any gradient is that of some sum.
            if len(view.thetas) > n and _explains(view, power + shares):
                return _formula(view, power, " + ".join(view.names[i] for i in members))
    return None


def _varying(view: View, local: Float[np.ndarray, "case parameter"]) -> str:
    """Exponents that differ from case to case, relative to the largest."""
    first = int(np.argmax(np.abs(local * view.scale).mean(axis=0)))
    relative = local / local[:, [first]]
    ends = np.quantile(relative, [0.05, 0.95], axis=0)
    middle = np.median(relative, axis=0)
    if np.abs(np.diff(ends, axis=0)).max() < _ROUNDING:
        return f"about {_formula(view, np.round(middle, 2))}"
    ranges = [
        f"{name} {low:.2g} to {high:.2g}"
        for name, low, high in zip(view.names, *ends, strict=True)
        if high - low > _ROUNDING
    ]
    what = "exponents" if view.logarithmic else "weights"
    return (
        f"about {_formula(view, np.round(middle, 2))}, with {what} that change over the prior "
        f"({', '.join(ranges)}, from the 5th to the 95th percentile)"
    )


def _simple(exact: Float[np.ndarray, " parameter"]) -> list[np.ndarray]:
    """Whole multiples of a direction, the smallest first, that come close to it."""
    largest = exact / exact[np.argmax(np.abs(exact))]
    choices = []
    for factor in _FACTORS:
        rounded = np.round(factor * largest)
        # All take part: a direction that moves fewer would have been found before.
        if rounded.all() and np.abs(rounded / factor - largest).max() < _ROUNDING:
            choices.append(rounded * np.sign(rounded[0]))
    return choices


def _moved(view: View, exponents: Float[np.ndarray, " parameter"]) -> str:
    pairs = [(n, e) for n, e in zip(view.names, exponents.tolist(), strict=True) if e]
    names = [name for name, _ in pairs]
    if view.logarithmic and all(e == pairs[0][1] for _, e in pairs):
        return f"{_list(names)} can be multiplied by the same factor"
    if view.logarithmic and [e for _, e in pairs] == [1.0, -1.0]:
        return f"{names[0]} can be multiplied by any factor if {names[1]} is divided by it"
    if view.logarithmic:
        powers = [f"{name} by f^{e:g}" if e != 1.0 else f"{name} by f" for name, e in pairs]
        return f"with any factor f, {_list(powers)} can be multiplied"
    shifts = [f"{name} by {e:+g}" for name, e in pairs]
    return f"{_list(shifts)} can be shifted together (or by any multiple)"


def _formula(view: View, exponents: Float[np.ndarray, " parameter"], total: str = "") -> str:
    """A product of powers, or in physical values a weighted sum."""
    terms = [(n, e) for n, e in zip(view.names, exponents.tolist(), strict=True) if e]
    if not view.logarithmic:
        text = " ".join(f"{'-' if e < 0 else '+'} {_times(abs(e))}{name}" for name, e in terms)
        return text.removeprefix("+ ")
    if total:
        bare = not terms
        terms.append((total if bare else f"({total})", 1.0))
        if terms[0][1] < 0.0:
            terms = [(name, -e) for name, e in terms]
    above = [_power(name, e) for name, e in terms if e > 0.0]
    below = [_power(name, -e) for name, e in terms if e < 0.0]
    top = " * ".join(above) or "1"
    if not below:
        return top
    return f"{top} / {below[0]}" if len(below) == 1 else f"{top} / ({' * '.join(below)})"


def _power(name: str, exponent: float) -> str:
    return name if exponent == 1.0 else f"{name}^{exponent:g}"


def _times(weight: float) -> str:
    return "" if weight == 1.0 else f"{weight:g} "


def _list(names: tuple[str, ...] | list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
