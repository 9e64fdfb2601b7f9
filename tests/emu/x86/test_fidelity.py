"""What `v2e doctor` says is missing is what docs/fidelity.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.x86.fidelity import GAPS, Gap, unkept

PAGE = Path(__file__).parents[3] / "docs" / "fidelity.md"
KEPT, HELPER, MISSING = {"kept", "checked"}, {"helper"}, {"in part", "not"}


def values() -> dict[str, str]:
    """Promise -> its value."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and cells[0] != "promise" and not cells[0].startswith("-"):
            assert cells[0] not in found
            found[cells[0]] = cells[1]
    return found


def test_every_promise_has_a_value() -> None:
    said = values()
    assert len(said) > 50
    assert KEPT | HELPER | {"in part"} <= set(said.values()) <= KEPT | HELPER | MISSING


def test_every_promise_that_is_not_kept_is_in_the_table_of_gaps() -> None:
    assert {promise for promise, value in values().items() if value not in KEPT} == {gap.promise for gap in GAPS}


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.promise)
def test_what_the_helper_closes_is_said_to_be_closed_by_it(gap: Gap) -> None:
    assert values()[gap.promise] in (MISSING if gap.always else HELPER)


def test_the_portable_loop_lacks_what_the_helper_lacks_and_more() -> None:
    assert set(unkept(helper=True)) < set(unkept(helper=False))
    assert len(unkept(helper=False)) == len(GAPS)
