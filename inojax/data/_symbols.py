"""Formulas as a graph in which equal ones are a single node, however they are spelled."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

# Longer sums and products stay a term of the one around them: doubling again and again must not
# take forever.
_LONGEST = 64


class Node(NamedTuple):
    """One scalar, or one array that is not looked into.

    Attributes:
        name: Of the operation.
        detail: Its settings as text.
        inputs: The nodes that it takes.
        constant: Its value, a NumPy scalar or array, where that is known.
    """

    name: str
    detail: str
    inputs: tuple[int, ...]
    constant: np.ndarray | None


class Symbols:
    """All nodes of a few formulas, each known by a digest of what it computes.

    Sums and products of double precision numbers are sets of terms: order, brackets, signs that
    are drawn out, terms of zero and factors of one leave the node the same. So two formulas with
    one digest give the same numbers up to rounding, as far as all numbers are finite.

    Attributes:
        nodes: The nodes.
        digests: The digest of each.
    """

    nodes: list[Node]
    digests: list[bytes]

    def __init__(self) -> None:
        """Start without nodes."""
        self.nodes, self.digests = [], []
        self._known: dict[tuple[str, str, tuple[int, ...]], int] = {}

    def node(
        self,
        name: str,
        detail: str = "",
        inputs: Iterable[int] = (),
        constant: np.ndarray | None = None,
    ) -> int:
        """The number of a node, which is made where there is none yet."""
        key = (name, detail, tuple(inputs))
        if key not in self._known:
            digest = hashlib.blake2b(f"{name}\0{detail}\0".encode(), digest_size=16)
            for number in key[2]:
                digest.update(self.digests[number])
            self._known[key] = len(self.nodes)
            self.nodes.append(Node(*key, constant))
            self.digests.append(digest.digest())
        return self._known[key]

    def constant(self, value: np.ndarray) -> int:
        """The node of a known number or array, with all its bits."""
        text = value.tobytes()
        if value.ndim:
            text = hashlib.sha256(text).digest()
        return self.node("constant", f"{value.dtype}{value.shape}{text.hex()}", (), value)

    def by_digest(self, nodes: Iterable[int]) -> list[int]:
        """Nodes in an order that does not depend on when they were made."""
        return sorted(nodes, key=self.digests.__getitem__)

    def negative(self, node: int) -> int:
        """Minus a node."""
        entry = self.nodes[node]
        if entry.name == "negative":
            return entry.inputs[0]
        if entry.constant is not None:
            return self.constant(np.asarray(np.negative(entry.constant)))
        return self.node("negative", "", (node,))

    def _signed(self, node: int) -> tuple[int, int]:
        """A sign, and the node without it."""
        entry = self.nodes[node]
        if entry.name == "negative":
            return -1, entry.inputs[0]
        if entry.constant is not None and entry.constant < 0:
            return -1, self.negative(node)
        return 1, node

    def sum(self, terms: Iterable[int], kind: str) -> int:
        """The sum of scalars of a dtype."""
        found: list[tuple[int, int]] = []
        for term in terms:
            sign, inner = self._signed(term)
            entry = self.nodes[inner]
            if entry.name == "sum" and len(entry.inputs) <= _LONGEST:
                signs = entry.detail.removeprefix(kind)
                found += [
                    (sign if s == "+" else -sign, n)
                    for s, n in zip(signs, entry.inputs, strict=True)
                ]
            elif not self._is(inner, 0):
                found.append((sign, inner))
        if not found:
            return self.constant(np.zeros((), kind))
        found = self._sorted(found)
        # The first term counts as positive; else a minus stands before the whole.
        if flipped := found[0][0] < 0:
            found = self._sorted([(-sign, node) for sign, node in found])
        signs = "".join("+" if sign > 0 else "-" for sign, _ in found)
        nodes = tuple(node for _, node in found)
        result = nodes[0] if len(nodes) == 1 else self.node("sum", kind + signs, nodes)
        return self.negative(result) if flipped else result

    def _sorted(self, terms: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return sorted(terms, key=lambda term: (self.digests[term[1]], -term[0]))

    def product(self, factors: Iterable[int], kind: str, divisors: Iterable[int] = ()) -> int:
        """The product of scalars of a dtype, divided by others."""
        sign = 1
        above: list[int] = []
        below: list[int] = []
        for nodes, side, other in ((factors, above, below), (divisors, below, above)):
            for node in nodes:
                own, inner = self._signed(node)
                sign *= own
                entry = self.nodes[inner]
                if entry.name == "product" and len(entry.inputs) <= _LONGEST:
                    cut = int(entry.detail.removeprefix(kind))
                    side.extend(entry.inputs[:cut])
                    other.extend(entry.inputs[cut:])
                elif not self._is(inner, 1):
                    side.append(inner)
        result = self._fraction(above, below, kind)
        return self.negative(result) if sign < 0 else result

    def _fraction(self, above: list[int], below: list[int], kind: str) -> int:
        if not below:
            if not above:
                return self.constant(np.ones((), kind))
            if any(self._is(node, 0) for node in above):
                return self.constant(np.zeros((), kind))
            if len(above) == 1:
                return above[0]
        nodes = (*self.by_digest(above), *self.by_digest(below))
        return self.node("product", f"{kind}{len(above)}", nodes)

    def _is(self, node: int, value: int) -> bool:
        constant = self.nodes[node].constant
        return constant is not None and constant.ndim == 0 and bool(constant == value)

    def reached(self, outputs: Sequence[int]) -> list[Node]:
        """All nodes that some nodes are made from, themselves included."""
        seen, waiting = set(outputs), list(outputs)
        while waiting:
            new = set(self.nodes[waiting.pop()].inputs) - seen
            seen |= new
            waiting += new
        return [self.nodes[number] for number in sorted(seen)]
