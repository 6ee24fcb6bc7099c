"""The table printer of the experiments."""

import pytest

from experiments.common.tables import number, table

HEADER = ("method", "APE [seeds]")
ROWS = [["a [0.1, 0.2]", "0.1 [bold]"], ["long" * 400, "1"]]


def test_a_table_is_plain_text_where_it_is_not_read_on_a_terminal():
    lines = table(("method", "error"), [["ours", "0.1"], ["prior", "12"]]).splitlines()
    assert lines == ["method   error", "--------------", "ours       0.1", "prior       12"]


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_cut_or_taken_for_markup(terminal: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = table(HEADER, ROWS, terminal=terminal).splitlines()
    assert len(lines) == 4  # nothing is wrapped
    assert "APE [seeds]" in lines[0]
    assert all(cell in lines[2] for cell in ROWS[0])
    assert ROWS[1][0] in lines[3]
    assert ("\x1b[1m" in lines[0]) == terminal
    assert terminal or "".join(lines).isascii()


def test_numbers_are_short_and_a_dash_where_there_is_none():
    assert [number(x) for x in (0.12345, 1.0, 0.0, 123456.0)] == [
        "0.123",
        "1.00",
        "0.00",
        "1.23e+05",
    ]
    assert number(1e-9) == "1.00e-09"
    assert [number(x) for x in (None, float("nan"), float("inf"))] == ["-"] * 3
