"""The mapping of RAM and ROM."""

from __future__ import annotations

import pytest

from emu.memory import Part, PhysicalMemory
from emu.subject import MemoryUnavailable


def memory() -> PhysicalMemory:
    return PhysicalMemory(
        [
            Part(0, 0x2000, "ram", "low"),
            Part(0x2000, 0x1000, "rom", "rom", b"ROM!"),
            Part(0x8000, 0x1000, "ram", "high"),
        ]
    )


def test_a_read_crosses_from_one_part_to_the_next() -> None:
    ram = memory()
    ram.write(0x1FFE, b"ab")
    assert ram.read(0x1FFE, 6) == b"abROM!"


def test_a_read_names_the_first_address_without_memory() -> None:
    with pytest.raises(MemoryUnavailable) as caught:
        memory().read(0x2FF0, 0x100)
    assert caught.value.address == 0x3000


def test_a_write_that_does_not_fit_writes_nothing() -> None:
    ram = memory()
    with pytest.raises(MemoryUnavailable):
        ram.write(0x2FFE, b"xxxx")
    assert ram.read(0x2FFE, 2) == b"\0\0"


def test_available_counts_up_to_the_hole() -> None:
    assert memory().available(0x1000, 0x10000) == 0x2000
    assert memory().available(0x3000, 1) == 0


def test_writes_are_told_to_engines() -> None:
    ram, told = memory(), []
    ram.on_write.append(lambda *what: told.append(what))
    ram.write(0x1FFF, b"abc")
    assert told == [(0x1FFF, 3)]


def test_restore_brings_back_every_byte_and_tells_only_what_differed() -> None:
    ram = memory()
    saved = ram.save()
    ram.write(0x10, b"changed")
    told: list[tuple[int, int]] = []
    ram.on_write.append(lambda *what: told.append(what))
    ram.restore(saved)
    assert ram.save() == saved
    assert told == [(0, 0x1000)]


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 5 bytes"):
        memory().restore(b"12345")


def test_clear_leaves_only_contents() -> None:
    ram = memory()
    ram.write(0, b"x")
    ram.write(0x2000, b"YYYY")
    ram.clear([Part(0x2000, 0x1000, "rom", "rom", b"ROM!")])
    assert ram.read(0, 1) + ram.read(0x2000, 4) == b"\0ROM!"


@pytest.mark.parametrize(("base", "size"), [(0x800, 0x1000), (0, 0x800), (0, 0)])
def test_parts_are_whole_pages(base: int, size: int) -> None:
    with pytest.raises(ValueError, match="whole pages"):
        PhysicalMemory([Part(base, size, "ram", "odd")])


def test_parts_may_not_overlap() -> None:
    with pytest.raises(ValueError, match="overlaps"):
        PhysicalMemory([Part(0, 0x2000, "ram", "a"), Part(0x1000, 0x1000, "ram", "b")])
