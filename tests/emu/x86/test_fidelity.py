"""What `v2e doctor` says is missing is what docs/fidelity.md says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emu.x86.fidelity import GAPS, Gap, unkept

PAGE = Path(__file__).parents[3] / "docs" / "fidelity.md"
#: What is said in the second column of something that is not kept everywhere.
MISSING = re.compile(r"with the C helper|\bno\b|\bnot\b|otherwise|^`full`")


def rows() -> dict[str, str]:
    """Promise -> what is said of it."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 3 and cells[0] != "promise" and not cells[0].startswith("-"):
            found[cells[0]] = cells[1]
    return found


def test_every_promise_that_is_not_kept_is_in_the_table_of_gaps() -> None:
    said = rows()
    assert len(said) > 30
    assert {promise for promise, kept in said.items() if MISSING.search(kept)} == {gap.promise for gap in GAPS}


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.promise)
def test_what_the_helper_closes_is_said_to_be_closed_by_it(gap: Gap) -> None:
    kept = rows()[gap.promise]
    by_helper = "with the C helper" in kept or "portable loop" in kept or kept.startswith("`full`")
    assert by_helper is not gap.always


def test_the_portable_loop_lacks_what_the_helper_lacks_and_more() -> None:
    assert set(unkept(helper=True)) < set(unkept(helper=False))
    assert len(unkept(helper=False)) == len(GAPS)
