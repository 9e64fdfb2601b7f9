"""Ports 92h and CF9h and the A20 gate (PS/2 Hardware Interface Technical Reference; PIIX3 data sheet 290550)."""

from __future__ import annotations

import pytest

from emu.devices.syscontrol import A20Gate, Port92, ResetControl, ResetFace


class Board:
    def __init__(self) -> None:
        self.a20: list[bool] = []
        self.resets: list[str] = []
        self.gate = A20Gate(self.a20.append)
        self.port92 = Port92(self.gate, self.resets.append)
        self.cf9 = ResetControl(self.resets.append)


@pytest.fixture
def board() -> Board:
    return Board()


def test_a20_is_enabled_while_either_source_asks_for_it(board: Board) -> None:
    assert board.gate.enabled
    board.port92.write(0, 2, 1)
    board.gate.keyboard(False)
    assert board.gate.enabled
    board.port92.write(0, 0, 1)
    assert not board.gate.enabled
    board.gate.keyboard(True)
    assert board.gate.enabled
    assert board.a20 == [False, True], "told of changes of the result only"


def test_port_92_reads_its_own_a20_bit_and_not_the_keyboards(board: Board) -> None:
    assert board.port92.read(0, 1) == 0
    board.port92.write(0, 2, 1)
    assert board.port92.read(0, 1) == board.port92.peek(0, 1) == 2


def test_fast_reset_needs_a_change_from_0_to_1(board: Board) -> None:
    board.port92.write(0, 1, 1)
    board.port92.write(0, 3, 1)
    assert board.resets == ["cpu"]
    board.port92.write(0, 2, 1)
    board.port92.write(0, 3, 1)
    assert board.resets == ["cpu", "cpu"]
    assert board.gate.enabled


def test_security_lock_latches_until_reset_and_reserved_bits_read_0(board: Board) -> None:
    board.port92.write(0, 0xFE, 1)
    assert board.port92.read(0, 1) == 0xCA
    board.port92.write(0, 0, 1)
    assert board.port92.read(0, 1) == 0x08
    board.port92.reset()
    assert board.port92.read(0, 1) == 0


def test_port_92_reset_takes_its_a20_request_back(board: Board) -> None:
    board.port92.write(0, 2, 1)
    board.gate.keyboard(False)
    board.port92.reset()
    assert not board.gate.enabled


def test_cf9_resets_the_system_or_the_cpu_when_bit_2_rises(board: Board) -> None:
    board.cf9.write(0, 0x02, 1)
    assert board.resets == []
    board.cf9.write(0, 0x06, 1)
    board.cf9.write(0, 0x06, 1)
    assert board.resets == ["system"]
    board.cf9.write(0, 0x00, 1)
    board.cf9.write(0, 0x04, 1)
    assert board.resets == ["system", "cpu"]


def test_cf9_keeps_bits_1_and_2_only(board: Board) -> None:
    board.cf9.write(0, 0xFB, 1)
    assert board.cf9.read(0, 1) == board.cf9.peek(0, 1) == 0x02
    board.cf9.reset()
    assert board.cf9.read(0, 1) == 0


def test_state_comes_back_without_a_reset(board: Board) -> None:
    board.port92.write(0, 0x42, 1)
    board.gate.keyboard(False)
    board.port92.write(0, 0x41, 1)
    board.cf9.write(0, 0x06, 1)
    saved = board.gate.save(), board.port92.save(), board.cf9.save()
    other = Board()
    other.gate.restore(saved[0])
    other.port92.restore(saved[1])
    other.cf9.restore(saved[2])
    assert saved == (other.gate.save(), other.port92.save(), other.cf9.save())
    assert other.a20 == [False]
    assert other.resets == []
    other.port92.write(0, 0x41, 1)
    other.cf9.write(0, 0x06, 1)
    assert other.resets == [], "both edges are in the state"


def test_saved_states_are_copies(board: Board) -> None:
    saved = board.gate.save(), board.port92.save(), board.cf9.save()
    board.port92.write(0, 0x42, 1)
    board.gate.keyboard(False)
    board.cf9.write(0, 0x02, 1)
    fresh = Board()
    assert saved == (fresh.gate.save(), fresh.port92.save(), fresh.cf9.save())


def test_views_say_what_is_on(board: Board) -> None:
    board.gate.keyboard(False)
    assert "masked" in board.gate.view().fields[0].text
    board.port92.write(0, 2, 1)
    assert board.port92.view().fields[0].text == "A20"
    board.cf9.write(0, 2, 1)
    assert board.cf9.view().fields[0].text == "system reset"


def test_a_dword_to_the_pci_address_port_is_no_reset():
    """BIOS-bochs looks for PCI with 80000C00h at CF8h, whose second byte would be a reset."""
    asked = []
    face = ResetFace(ResetControl(asked.append))
    face.write(0, 0x80000C00, 4)
    assert asked == []
    assert face.read(0, 4) == 0xFFFFFFFF
    face.write(1, 0x06, 1)
    assert len(asked) == 1
