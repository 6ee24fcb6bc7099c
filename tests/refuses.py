"""Bad input, as a user meets it."""

import contextlib
from collections.abc import Iterator

import jaxtyping
import pytest


@contextlib.contextmanager
def refuses(error: type[Exception], match: str) -> Iterator[None]:
    """`pytest.raises` without the annotation checks that only the tests add.

    jaxtyping would otherwise refuse a wrong type or shape before our own errors, which are what
    a user sees, get their turn.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error, match=match):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
