"""Which start of a domain is made again, and how often."""

from __future__ import annotations

import pytest

from emu.x86.state import CpuState, Segment
from starting import STARTS, Spoilt, astray, started


class Domain:
    """Its number, and whether it was destroyed."""

    def __init__(self, number: int) -> None:
        self.number, self.gone = number, False

    def destroy(self) -> None:
        self.gone = True


class Starts:
    """Makes domains, of which the first so many are spoilt."""

    def __init__(self, spoilt: int, error: type[Exception] = Spoilt) -> None:
        self.spoilt, self.error = spoilt, error
        self.made: list[Domain] = []
        self.told: list[str] = []

    def make(self) -> Domain:
        self.made.append(Domain(len(self.made) + 1))
        return self.made[-1]

    def settle(self, domain: Domain) -> None:
        if domain.number <= self.spoilt:
            raise self.error(f"why {domain.number}")

    def run(self) -> Domain:
        return started(self.make, self.settle, self.told.append)


@pytest.mark.parametrize("spoilt", range(STARTS))
def test_a_start_that_is_spoilt_is_made_again_and_told_with_its_reason(spoilt: int) -> None:
    starts = Starts(spoilt)
    assert starts.run().number == spoilt + 1
    assert [domain.gone for domain in starts.made] == [True] * spoilt + [False]
    assert starts.told == [f"start {n} of a domain: why {n}" for n in range(1, spoilt + 1)]


def test_the_last_start_has_to_do() -> None:
    starts = Starts(STARTS)
    with pytest.raises(Spoilt, match=f"^why {STARTS}$"):
        starts.run()
    assert [domain.gone for domain in starts.made] == [True] * STARTS
    assert len(starts.told) == STARTS - 1


def test_what_fails_otherwise_is_not_made_again() -> None:
    starts = Starts(1, ValueError)
    with pytest.raises(ValueError, match=r"^why 1$"):
        starts.run()
    assert ([domain.gone for domain in starts.made], starts.told) == ([True], [])


def at(selector: int, rip: int, cr0: int = 0x10) -> CpuState:
    state = CpuState(rip=rip, cr0=cr0)
    state.cs = Segment(selector, selector << 4, 0xFFFF, 0x9B)
    return state


@pytest.mark.parametrize(
    ("state", "wrong"),
    [
        (at(0, 0x7C00), ""),
        (at(0x7C0, 0x1FF), ""),
        (at(0xF000, 0xFFF0), ""),
        (at(0xC000, 3), ""),
        (at(0x0, 0x1234, cr0=0x11), ""),  # flat protected mode, as hvmloader has it
        (at(0, 0x7E00), "it executes what is no code, at 0000:7e00"),
        (at(0x9FC0, 0x3F0), "it executes what is no code, at 9fc0:03f0"),
        (at(0xFFFF, 0x10), "it executes what is no code, at ffff:0010"),
    ],
)
def test_in_real_mode_code_is_the_firmwares_or_the_boot_sectors(state: CpuState, wrong: str) -> None:
    assert astray(state) == wrong
