"""What reaches a branch by way of a handler is told by what the handler polled: through registers, the stack and the
flags in the frame that IRET loads. What is expected is what a person finds in the nasm text of each guest; the oracle
of the explanation is that the guest leaves the loop when what it names is made true."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, flat_state, long_state
from emu.debugger import Debugger
from emu.firmware.roms import builtin_bios
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.stops import StopKind
from emu.views import StuckView
from emu.x86.state import Segment, Table
from machines import debugger, rom, seabios_debugger

#: A loop that calls a handler at `h` by INT 16h, and may call one at `g` by INT 60h. 77h is what it ends with.
CALLS = """
    mov word [0x58], h
    mov word [0x5a], cs
    mov word [0x180], g
    mov word [0x182], cs
    mov ss, ax
    mov sp, 0x7000
    {setup}
    w: mov ah, 1
    {before}
    int 0x16
    {branch} w
    mov al, 0x77
    out 0xf4, al
    {handler}
    g: iret
"""
FRAME = "push bp\nmov bp, sp\n"
SET, CLEAR = f"{FRAME}or word [bp+6], 0x40\npop bp\niret", f"{FRAME}and byte [bp+6], 0xbf\npop bp\niret"
ZF = "ZF behind INT 16h (AH=01h) must become 0: "
BYTE = "the byte at linear 0x9000, which holds 0x00, must become "
#: (handler, what is told, the bytes at 9000h that end the loop, {what else of CALLS}).
HANDLERS: dict[str, tuple[str, str, bytes, dict[str, str]]] = {
    "a branch to a constant": (
        f"h: push bx\nmov bx, [0x41a]\ncmp bx, [0x9000]\npop bx\njne k\n{SET}\nk: {CLEAR}",
        f"{ZF}the 2 bytes at linear 0x9000, which holds 0x0000, must become something but 0x0", b"\x20", {},
    ),
    "flags that are copied": (
        f"h: {FRAME}push ax\ncmp byte [0x9000], 0\npushf\npop ax\nmov [bp+6], ax\npop ax\npop bp\niret",
        f"{BYTE}something but 0x0", b"\1", {},
    ),
    "flags by LAHF": (
        f"h: {FRAME}push ax\ntest byte [0x9000], 4\nlahf\nmov [bp+6], ah\npop ax\npop bp\niret",
        f"bit 2 of {BYTE}1", b"\4", {},
    ),
    "the handler's own flags": ("h: cmp byte [0x9000], 0\nretf 2", f"{BYTE}something but 0x0", b"\1", {}),
    "flags that it leaves as they were": (
        "h: push ax\nxor ax, ax\npop ax\niret", f"{BYTE}something but 0x0", b"\1", {"before": "cmp byte [0x9000], 0"},
    ),
    "flags by SAHF": (
        "h: push ax\nmov ah, [0x9000]\nor ah, 2\nxor ah, 0x40\nsahf\npop ax\nretf 2",
        BYTE.split(", which")[0], b"\x40", {},
    ),
    "the carry": (
        f"h: {FRAME}or byte [bp+6], 1\ntest byte [0x9000], 0x80\njz k\nand byte [bp+6], 0xfe\nk: pop bp\niret",
        f"CF behind INT 16h (AH=01h) must become 0: bit 7 of {BYTE}1", b"\x80", {"branch": "jc"},
    ),
    "a bit that is not the flag's": (
        f"h: {FRAME}or byte [bp+6], 1\nand byte [bp+7], 0xfd\npop bp\niret", f"{BYTE}something but 0x0", b"\1",
        {"before": "cmp byte [0x9000], 0"},
    ),
    "another handler's flags": (
        f"h: {FRAME}int 0x60\njz s\nand byte [bp+6], 0xbf\npop bp\niret\ns: or byte [bp+6], 0x40\npop bp\niret\n"
        f"v: cmp byte [0x9000], 7\nje n\n{SET}\nn: {CLEAR}", f"{ZF}{BYTE}0x7", b"\7",
        {"setup": "mov word [0x180], v"},
    ),
    "a port, by way of the stack": (
        f"h: push ax\nin al, 0x64\nmov ah, al\npush ax\npop cx\ntest ch, 1\npop ax\njnz k\n{SET}\nk: {CLEAR}",
        f"{ZF}bit 0 of port 0x64 (kbc), which reads 0x10, must become 1", b"", {},
    ),
    "a result in a register": (
        "h: cmp byte [0x9000], 5\nje y\nxor cx, cx\njmp z\ny: mov cx, 1\nz: or cx, cx\nretf 2",
        f"it must become something but 0: {BYTE}0x5", b"\5", {},
    ),
    "all registers saved": (
        "h: pusha\nmov bp, sp\nmov bx, [0x9000]\nmov [bp+8], bx\npopa\npush bx\nor bx, bx\npop bx\nretf 2",
        "the 2 bytes at linear 0x9000, which holds 0x0000, must become something but 0", b"\1", {},
    ),
    "a frame left by LEAVE, with ones above BP": (
        "h: mov ebp, 0x10000\nmov bp, [0x9000]\npush bp\nmov bp, sp\nxor bx, bx\nleave\nor bp, bp\nretf 2",
        "the 2 bytes at linear 0x9000, which holds 0x0000, must become something but 0", b"\1", {},
    ),
    "registers that are exchanged": (
        "h: mov cx, [0x9000]\nxchg cx, dx\nxchg dx, [0x9010]\nmov bx, [0x9010]\ncmp bl, 9\nretf 2",
        "linear 0x9000", b"\x09", {"branch": "jnz"},
    ),
    "a structure that is moved": (
        "h: push es\npush ds\npop es\nmov si, 0x9000\nmov di, 0x9100\nmov cx, 8\nrep movsw\npop es\n"
        "cmp byte [0x9100], 3\nretf 2", f"{BYTE}0x3", b"\3", {"branch": "jnz"},
    ),
}  # fmt: skip


def waiting(source: str, instructions: int = 5_000) -> Debugger:
    run = debugger(rom(source))
    run.set_limit(instructions)
    run.begin_continue()
    run.run()
    return run


def leaves(run: Debugger, data: bytes) -> bool:
    run.machine.write_physical(0x9000, data)
    run.set_limit(run.machine.executor.retired + 5_000)
    run.begin_continue()
    stop = run.run()
    return (stop.kind, stop.exit_code) == (StopKind.EXIT, 0x77)


@pytest.mark.parametrize(("handler", "told", "ends", "other"), HANDLERS.values(), ids=HANDLERS)
def test_what_a_handler_polled_is_told_and_ends_the_loop(
    handler: str, told: str, ends: bytes, other: dict[str, str]
) -> None:
    source = CALLS.format(**{"setup": "", "before": "", "branch": "jz", "handler": handler, **other})
    summaries = set()
    for more in range(5):  # wherever in the round it begins
        run = waiting(source, 1_000 + more)
        view = run.why_stuck()
        assert view.verdict == "waits" and told in view.summary, view
        summaries.add(view.summary)
        if ends and not more:
            assert leaves(run, ends)
        run.machine.close()
    assert len(summaries) == 1


def test_a_handler_that_always_says_the_same_is_told_by_the_call() -> None:
    view = waiting(CALLS.format(setup="", before="", branch="jz", handler=f"h: {SET}")).why_stuck()
    assert view.verdict == "waits" and view.summary.endswith("ZF behind INT 16h (AH=01h) must become 0"), view


def test_branches_that_go_by_constants_are_no_ways_out() -> None:
    view = waiting("w: mov ah, 1\nmov bl, ah\ncmp bl, 1\njne o\nin al, 0x64\ntest al, 1\njz w\no: hlt").why_stuck()
    assert [text for text in view.details if text.startswith("way out")] == [
        "way out at 0xf0012 (decided at 0xf0010): bit 0 must become 1"
    ]


def view_of(bits: int, source: str) -> tuple[Debugger, StuckView]:
    """Of 32- or 64-bit code in ring 0 that polls by INT 40h, with the IDT at 2000h."""
    machine = build_machine(MachineConfig(memory=4 << 20, firmware=rom("hlt"), shadow=False))
    state = (flat_state if bits == 32 else long_state)(machine.memory)
    machine.memory.write(CODE, assemble(f"bits {bits}\norg {CODE:#x}\n{source}"))
    handler = CODE + 0x100
    gate = bytes.fromhex("000008 00 00 8e 0000".replace(" ", "")) if bits == 32 else bytes(16)
    gate = bytearray(gate)
    gate[0:2], gate[2:4] = (handler & 0xFFFF).to_bytes(2, "little"), (8 if bits == 32 else 0x18).to_bytes(2, "little")
    gate[4:6] = b"\0\x8e"
    machine.memory.write(0x2000 + 0x40 * len(gate), bytes(gate))
    state.idtr = Table(0x2000, 0xFFF)
    state.tr = Segment(0x30, 0x3000, 0x67, 0x8B)
    machine.load_cpu(state)
    run = Debugger(machine)
    run.set_limit(2_000)
    run.begin_continue()
    run.run()
    return run, run.why_stuck()


@pytest.mark.parametrize(
    ("bits", "source"),
    [
        (32, "w: int 0x40\njz w\nmov al, 0x77\nout 0xf4, al\ntimes 0x100-($-$$) nop\ncmp dword [0x9000], 3\nje k\n"
             "or dword [esp+8], 0x40\niret\nk: and dword [esp+8], ~0x40\niret"),
        (64, "w: int 0x40\njz w\nmov al, 0x77\nout 0xf4, al\ntimes 0x100-($-$$) nop\npush rax\nmov eax, [abs 0x9000]\n"
             "cmp eax, 3\npop rax\nje k\nor qword [rsp+16], 0x40\niretq\nk: and qword [rsp+16], ~0x40\niretq"),
        (64, "w: int 0x40\njz w\nmov al, 0x77\nout 0xf4, al\ntimes 0x100-($-$$) nop\n"
             "mov rbx, [abs 0x9000]\nxor ebx, 3\nsetz cl\nmovzx ecx, cl\n"
             "xor ecx, 1\nshl ecx, 6\nand qword [rsp+16], ~0x40\nor [rsp+16], rcx\niretq"),
    ],
    ids=["32-bit", "64-bit", "64-bit, computed"],
)  # fmt: skip
def test_handlers_of_protected_and_64_bit_mode(bits: int, source: str) -> None:
    run, view = view_of(bits, source)
    assert view.verdict == "waits" and "ZF behind INT 40h" in view.summary, view
    assert "bytes at linear 0x9000" in view.summary, view
    assert leaves(run, b"\3\0\0\0")
    run.machine.close()


SECTOR = (
    "org 0x7c00\nsti\nw: mov ah, {ah}\nint 0x16\njz w\nmov al, 0x77\nout 0xf4, al\ntimes 510-($-$$) db 0\ndw 0xaa55"
)


@pytest.mark.slow_variants
@pytest.mark.parametrize("ah", [1, 0x11])
@pytest.mark.parametrize("firmware", ["built in", "SeaBIOS"])
def test_a_poll_for_a_key_is_told_by_the_keyboards_buffer(firmware: str, ah: int) -> None:
    sector = assemble(SECTOR.format(ah=ah))
    if firmware == "SeaBIOS":
        run = seabios_debugger(sector)
    else:
        disk = Disk.from_bytes(sector.ljust(1 << 20, b"\0"))
        run = Debugger(build_machine(MachineConfig(firmware=builtin_bios(), bios=True, disks=(disk,))))
    run.begin_until(0x7C00)
    run.run()
    run.set_limit(run.machine.executor.retired + 20_000)
    run.begin_continue()
    run.run()
    view = run.why_stuck()
    assert view.verdict == "waits", view
    assert f"ZF behind INT 16h (AH={ah:02X}h) must become 0: the 2 bytes at linear 0x41c (the tail of" in view.summary
    assert any("linear 0x41a (the head of the keyboard's buffer)" in text for text in view.details)
    run.type_text("a")
    run.set_limit(run.machine.executor.retired + 50_000_000)
    run.begin_continue()
    assert run.run().exit_code == 0x77, "a key ends it, as is said"
    run.machine.close()
