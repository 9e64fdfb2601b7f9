"""Domains that `xl` has made, with QEMU as their device model: attached to, saved, inspected, loaded."""

import contextlib
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import toolstack
from counting import ALL, LIMIT, said
from toolstack import XlDomain

from emu.firmware.roms import builtin_bios
from emu.inspector import DebuggerError, Inspector
from emu.machine import MachineConfig, build_machine
from machines import sector, until
from starting import Spoilt, astray, started
from xenbridge import convert
from xenbridge.xen import context
from xenbridge.xen.context import ContextError
from xenbridge.xen.domain import Domain
from xenbridge.xen.files import open_file
from xenbridge.xen.libraries import XenError
from xenbridge.xen.live import LiveDomain

BIOS = range(0xE0000, 0x100000)
IMR = 1  #: of a PIC's record
START = 30.0  #: seconds of the machine's time in which SeaBIOS has booted the sector
#: As xen-hvmctx shows GDTR and IDTR.
TABLE = r"^ +(idtr|gdtr) +\( *(\w+) \+ +(\w+)\)$"


def disk(folder: Path, name: str) -> Path:
    """A disk of 1 MiB with NAME.asm in its first sector."""
    path = folder / f"{name}.img"
    path.write_bytes(sector(name).ljust(1 << 20, b"\0"))
    return path


@pytest.fixture(scope="module", autouse=True)
def _tools():
    toolstack.start()


@pytest.fixture(scope="module")
def booted_by_xl(libraries, told_again, tmp_path_factory):
    """A domain that `xl` makes and SeaBIOS boots NAME.asm in, when it is as `there` has it. A start that QEMU's second
    delivery of a tick has spoilt is made again; see tests/starting.py."""

    def make(name: str, there: Callable[[XlDomain, Domain], bool]) -> XlDomain:
        folder = tmp_path_factory.mktemp(name)
        image = disk(folder, name)
        return started(
            lambda: XlDomain(name, folder, image),
            lambda one: settle(Domain(libraries, one.domid), one, there),
            told_again,
        )

    return make


def settle(domain: Domain, made: XlDomain, there: Callable[[XlDomain, Domain], bool]) -> None:
    """Wait until the domain is `there`, which is asked while it is paused. Raises Spoilt where it goes astray, ends, or
    does not come there."""
    where = ""

    def look() -> bool:
        nonlocal where
        domain.pause()
        state = domain.cpu_state()
        if wrong := "it has shut down" if "shutdown" in domain.states() else astray(state):
            raise Spoilt(wrong)
        where, met = f"{state.cs.selector:04x}:{state.rip:04x}", there(made, domain)
        domain.resume()
        return met

    try:
        if not until(look, every=0.1, seconds=START):
            raise Spoilt(f"it stood still, at {where} after {START:.0f} s")
    except (XenError, ContextError) as error:
        raise Spoilt(f"it has ended: {error}") from None


@pytest.fixture(scope="module")
def idle(booted_by_xl):
    """A domain whose boot sector, which has masked the timer, waits for a key in SeaBIOS."""

    def waits(made: XlDomain, domain: Domain) -> bool:
        state, masks = domain.cpu_state(), domain.record(context.PIC).data[IMR]
        return state.halted and state.cs.base == 0xF0000 and bool(masks & 1)

    domain = booted_by_xl("keys", waits)
    yield domain
    domain.destroy()


@pytest.fixture
def paused(libraries, idle):
    """It, paused where SeaBIOS halts in real mode."""
    domain = Domain(libraries, idle.domid)

    def in_bios() -> bool:
        domain.pause()
        state = domain.cpu_state()
        if state.halted and state.cs.base == 0xF0000:
            return True
        domain.resume()
        return False

    assert until(in_bios, every=0.05)
    yield domain
    with contextlib.suppress(XenError):  # the last test destroys it
        domain.resume()


def told_registers(text: str) -> dict[str, int]:
    """Of what Xen's own xen-hvmctx says: registers by their names."""
    return {name: int(value, 16) for name, value in re.findall(r"\b(r[a-z0-9]{2,5}|cr[0-4]) 0x([0-9a-f]{16})", text)}


def told_segments(text: str) -> dict[str, tuple[int, ...]]:
    """The same: selector, base, limit, access rights. It has the labels of ES and DS the wrong way round."""
    row = re.compile(r"^ +([a-z]+) +(\w+) \( *(\w+) \+ +(\w+) / +(\w+)\)$", re.MULTILINE)
    right = {"es": "ds", "ds": "es"}
    told = {right.get(name, name): [int(value, 16) for value in values] for name, *values in row.findall(text)}
    # Xen packs the rights: bits 11:8 are a descriptor's 15:12
    return {name: (*values, rights & 0xFF | (rights & 0xF00) << 4) for name, (*values, rights) in told.items()}


def test_the_domain_of_xl_stops_in_seabios_and_its_registers_are_those_that_xen_tells(paused) -> None:
    state, text = paused.cpu_state(), toolstack.program("xen-hvmctx", str(paused.domid))
    told = told_registers(text)
    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
    assert {name: told[name] for name in names} == dict(zip(names, state.regs[:8], strict=True))
    assert (told["rip"], told["rflags"], told["cr0"]) == (state.rip, state.rflags, state.cr0)
    segments = {name: state.segment(name) for name in ("es", "cs", "ss", "ds", "fs", "gs", "tr")}
    shown = {name: (one.selector, one.base, one.limit, one.access) for name, one in segments.items()}
    assert {name: values for name, values in told_segments(text).items() if name in shown} == shown
    tables = {name: (int(base, 16), int(limit, 16)) for name, base, limit in re.findall(TABLE, text, re.MULTILINE)}
    assert tables == {name: (getattr(state, name).base, getattr(state, name).limit) for name in ("idtr", "gdtr")}
    assert state.cs.base + state.rip in BIOS
    assert not state.cr0 & 1


def test_hidden_state_memory_and_descriptor_tables_of_seabios_are_shown(paused) -> None:
    pytest.importorskip("capstone")
    inspector = Inspector(LiveDomain(paused))
    assert inspector.mode().label in ("real", "big real")  # SeaBIOS reaches all memory by large limits
    code = next(segment for segment in inspector.segments() if segment.name == "cs")
    assert (code.selector, code.base) == (0xF000, 0xF0000)
    assert inspector.read_linear(0xFFFF0, 1) == b"\xea"  # a far jump is at the reset vector of any PC's BIOS
    # what halts is HLT, and the timer's vector is the BIOS's
    assert inspector.read_linear(inspector.linear_pc() - 1, 1) == b"\xf4"
    offset, selector = struct.unpack("<HH", inspector.read_linear(8 * 4, 4))
    vector = inspector.ivt()[8]
    assert (vector.target, vector.base) == (selector, offset)
    assert selector * 16 + offset in BIOS
    table = paused.cpu_state().gdtr
    assert len(inspector.gdt()) == -(-(table.limit + 1) // 8)  # SeaBIOS leaves the limit 0: one that is cut short


def test_the_screen_is_the_device_models(paused) -> None:
    with pytest.raises(DebuggerError, match=r"^the display belongs to the domain's device model: "):
        LiveDomain(paused).screen()


def test_a_program_attaches_twice_and_the_domain_runs_on(idle, paused) -> None:
    """As a person does, at first while somebody else has paused the domain: at a HLT, as in the middle of an access to
    a device there would be a notice."""
    command = [sys.executable, "-m", "repl.cli", "attach", str(idle.domid), "-c", "sreg", "-c", "x/1xb 0xffff0"]
    for held in (True, False):
        toolstack.program("xl", "pause" if held else "unpause", "keys")
        if held:
            paused.resume()  # it remains paused by xl
        attached = subprocess.run(command, capture_output=True, text=True, timeout=80, check=False)
        states = toolstack.program("xl", "list", "keys").splitlines()[1].split()[4]
        assert (attached.returncode, attached.stderr, "p" in states) == (0, "", held)
        assert re.search(r"^cs +f000 +000f0000 ", attached.stdout, re.MULTILINE)
        assert re.search(r"^000ffff0 +ea ", attached.stdout, re.MULTILINE)


def test_a_second_attach_sees_what_the_first_has_written(libraries, paused) -> None:
    """Both are readers and writers of the same domain; it runs when the last has left."""
    first, second = Inspector(LiveDomain(paused)), Inspector(LiveDomain(other := Domain(libraries, paused.domid)))
    other.pause()
    first.write_linear(0x500, b"first")
    assert second.read_linear(0x500, 5) == b"first"
    paused.resume()
    assert "paused" in other.states()
    other.resume()
    assert "paused" not in other.states()


def test_a_domain_that_xl_destroys_meanwhile_is_a_sentence(paused, idle) -> None:
    inspector = Inspector(LiveDomain(paused))
    idle.destroy()
    gone = rf"^(domain {paused.domid} has been destroyed|there is no domain {paused.domid})$"
    with pytest.raises(DebuggerError, match=gone):
        inspector.registers()
    with pytest.raises(XenError, match=gone):
        paused.resume()
    with pytest.raises(XenError, match=gone):
        Domain(paused.libraries, paused.domid)


@pytest.mark.timeout(240)  # making, saving, and reading a million frames, all emulated
def test_a_domain_that_xl_saves_is_inspected_and_goes_on_in_the_emulator_to_the_same_end(
    booted_by_xl, tmp_path
) -> None:
    domain, path = booted_by_xl("count", lambda made, _: made.serial().count("\n") >= 6), tmp_path / "xl.save"
    try:
        domain.save(path)
    finally:
        domain.destroy()
    before = domain.serial()
    assert 0 < len(before) < len(said())
    file = open_file(path)
    looked = Inspector(file)
    assert (file.about, looked.mode().label) == ("domain saved by xl on Xen 4.17", "real")
    assert looked.linear_pc() in range(0x7C00, 0x7E00)
    assert looked.read_linear(0x7C00, 512) == sector("count")
    assert {view.name for view in looked.devices()} >= {"pit", "lapic", "rtc"}
    machine = build_machine(MachineConfig(machine="pc", memory=16 << 20, firmware=builtin_bios(), bios=True))
    assert any("no RAM here" in notice for notice in convert.load(machine, file))
    assert machine.memory.read(0x7C00, 512) == sector("count")
    assert machine.cpu_state().linear_pc == looked.linear_pc()
    machine.memory.write(LIMIT, ALL)
    machine.run(1 << 40)  # to its end, or this test's time
    assert before + machine.serial_text() == said()
