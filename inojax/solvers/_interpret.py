"""Running a traced function equation by equation, with a say in each of them."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

# Calls of one program by another: what is inside is run in place.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}

# `rule(equation, operands, debug_info)` gives the results of an equation.
Rule = Callable[[Any, list[Any], Any], list[Any]]


def interpret(
    jaxpr: core.Jaxpr,
    consts: list[Any],
    inputs: list[Any],
    rule: Rule,
    literal: Callable[[Any], Any],
) -> list[Any]:
    """Run a program whose values may be anything that `rule` can work with.

    Args:
        jaxpr: The program.
        consts: Values of its constants.
        inputs: Values of its arguments.
        rule: From an equation and its operands to its results.
        literal: From a number in the program to a value.

    Returns:
        Its results.
    """
    environment: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return literal(atom.val) if isinstance(atom, core.Literal) else environment[atom]

    environment.update(zip(jaxpr.constvars, consts, strict=True))
    environment.update(zip(jaxpr.invars, inputs, strict=True))
    for equation in jaxpr.eqns:
        results = rule(equation, [read(atom) for atom in equation.invars], jaxpr.debug_info)
        environment.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def called(equation: core.JaxprEqn) -> tuple[core.Jaxpr, list[Any]] | None:
    """The program that an equation does nothing but call, with its constants."""
    if equation.primitive.name == "call_hi_primitive":
        return _expanded(equation)
    name = _CALLS.get(equation.primitive.name)
    if name is None or name not in equation.params:
        return None
    return opened(equation.params[name])


def _expanded(equation: core.JaxprEqn) -> tuple[core.Jaxpr, list[Any]] | None:
    """What an operation is made of that newer versions of JAX keep whole, such as a search."""
    expand = getattr(equation.params.get("_prim"), "expand", None)
    avals: Any = [atom.aval for atom in equation.invars]
    if expand is None:
        return None
    try:
        closed = jax.make_jaxpr(expand)(*(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals))
    except (TypeError, AttributeError):  # it takes its operands in another form
        return None
    alike = len(closed.jaxpr.outvars) == len(equation.outvars)
    return (closed.jaxpr, closed.consts) if alike else None


def opened(program: Any) -> tuple[core.Jaxpr, list[Any]]:
    """A program and its constants, whether it carries these or has none."""
    if isinstance(program, core.ClosedJaxpr):
        return program.jaxpr, program.consts
    return program, []


def alone(
    equation: core.JaxprEqn, operands: list[Any], debug_info: Any
) -> tuple[Callable[..., list[Any]], list[Any]]:
    """An equation as a function of what it reads, and the operands that it then takes.

    A program of one equation: running it needs no knowledge of the primitive's parameters, whose
    conventions change between versions of JAX. Numbers stay in it; a variable is taken once.
    """
    taken: dict[Any, Any] = {}
    for atom, operand in zip(equation.invars, operands, strict=True):
        if not isinstance(atom, core.Literal):
            taken.setdefault(atom, operand)
    single = core.Jaxpr(
        (), list(taken), equation.outvars, [equation], equation.effects, debug_info=debug_info
    )
    return core.jaxpr_as_fun(core.ClosedJaxpr(single, ())), list(taken.values())
