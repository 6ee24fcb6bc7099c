"""The one table printer of all experiments."""

import io
import math
import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD, Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# No table is as wide, so that nothing is ever cut or wrapped.
_WIDTH = 10_000
# Dashes below the header and nothing else, for files and encodings that have no box drawings.
_PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, terminal: bool | None = None
) -> str:
    """Align columns: the first to the left, numbers to the right; as wide as it must be.

    Args:
        header: Names of the columns.
        rows: Cells of each row; brackets in them are brackets, not markup.
        terminal: Whether to draw lines and a bold header; otherwise plain text. By default whether
            this is printed on a terminal.

    Returns:
        The lines, without a newline at the end.
    """
    fancy = sys.stdout.isatty() if terminal is None else terminal
    printed = Table(box=SIMPLE_HEAD if fancy else _PLAIN, pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        side = "right" if index else "left"
        printed.add_column(Text(name), justify=side, no_wrap=True)
    for row in rows:
        printed.add_row(*map(Text, row))
    file = io.StringIO()
    Console(file=file, width=_WIDTH, force_terminal=fancy, legacy_windows=False).print(printed)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0.0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".")
