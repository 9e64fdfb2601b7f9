"""Stops on events: each kind at its place, on both run loops, and nothing of a run changes by them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import capstone
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emu.catches import PLAIN_CLASSES, SEGMENTS, TABLES, Catch, CatchKind
from emu.debugger import Debugger, DebuggerError, StopKind
from emu.engine import Access
from emu.stops import Condition
from emu.unicorn_helper import HELPER, Helper
from emu.x86.classes import InstructionClass, classify
from machines import debugger, rom, timer

#: One of each: a software interrupt, #DE, a timer interrupt, ports, an MSR, control registers, tables, segment
#: registers, protected mode and back, a task switch, text on COM1 and on the screen.
EVENTS = rom(
    f"""
    mov ss, ax
    mov sp, 0x7000
    mov word [0], divide
    mov word [2], 0xf000
    mov word [8*4], tick
    mov word [8*4+2], 0xf000
    mov word [0x21*4], service
    mov word [0x21*4+2], 0xf000
    mov ax, 0x1234
at_int:
    int 0x21
    xor dx, dx
    xor cx, cx
at_divide:
    div cx
    mov al, 0x5a
at_out:
    out 0x80, al
at_in:
    in al, 0x61
at_wide:
    mov dx, 0x7f
    out dx, ax
    mov ecx, 0x277
at_rdmsr:
    rdmsr
at_wrmsr:
    wrmsr
at_magic:
    xchg bx, bx
at_lgdt:
    lgdt [cs:gdtr]
    mov eax, cr0
    inc ax
at_cr0:
    mov cr0, eax
    jmp 8:protected - start + 0xf0000 - 0xf0000
protected:
    mov ax, 16
at_ds:
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ax, 24
at_ltr:
    ltr ax
    mov dword [0x600 + 104 + 0x20], after
    mov dword [0x600 + 104 + 0x24], 2
    mov dword [0x600 + 104 + 0x38], 0x6000
    mov word [0x600 + 104 + 0x4c], 8
    mov word [0x600 + 104 + 0x50], 16
    mov word [0x600 + 104 + 0x54], 16
    mov word [0x600 + 104 + 0x48], 16
    jmp 32:0
after:
    mov eax, cr0
    dec ax
    mov cr0, eax
at_far:
    jmp 0xf000:real
real:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    mov dx, 0x3fb
    mov al, 3
    out dx, al
    mov dx, 0x3f8
    mov al, 'h'
    out dx, al
    mov al, 'i'
    out dx, al
{timer(12)}
    sti
main:
    inc dword [0x500]
    cmp dword [0x500], 2500
    jb main
    cli
    hlt
service:
    iret
divide:
    push bp
    mov bp, sp
    add word [bp+2], 2
    pop bp
    iret
tick:
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret
    """,
    """
    align 8
    gdt: dq 0, 0x00009b0f0000ffff, 0x000093000000ffff
    dq 0x0000890006000067, 0x0000890006680067
    gdtr: dw 39
    dd gdt + 0xf0000
    """,
)


@pytest.fixture(params=["fast", pytest.param("gate", marks=pytest.mark.slow)])
def guest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Debugger:
    """The machine on each run loop."""
    if request.param == "fast" and not isinstance(HELPER, Helper):
        pytest.skip("the C helper is not there")
    monkeypatch.setenv("V2E_ENGINE", request.param if request.param == "gate" else "")
    made = debugger(EVENTS)
    assert made.machine.executor.name == "unicorn"
    return made


def run(guest: Debugger, limit: int = 200_000) -> Iterator[str]:
    """The texts of its stops up to its end."""
    for _ in range(100):
        guest.set_limit(limit)
        guest.begin_continue()
        stop = guest.run()
        if stop.kind is not StopKind.CATCH:
            assert stop.kind in (StopKind.DEADLOCK, StopKind.LIMIT), stop.text
            return
        yield stop.text
    raise AssertionError("it goes on stopping")


def catch(kind: CatchKind, first: int | None = None, last: int | None = None, **more: object) -> Catch:
    return Catch(kind, first, last, **more)  # type: ignore[arg-type]


MSR_BOTH = int(InstructionClass.RDMSR | InstructionClass.WRMSR)
#: An event, and what its stops say, in order.
CAUGHT: tuple[tuple[Catch, tuple[str, ...]], ...] = (
    (catch(CatchKind.INT), (r"INT 0x21 at f000:\w+; now at f000:\w+",)),
    (catch(CatchKind.INT, 0x21), (r"INT 0x21 at",)),
    (catch(CatchKind.INT, 0x22), ()),
    (catch(CatchKind.EXCEPTION), (r"exception #DE at f000:",)),
    (catch(CatchKind.EXCEPTION, 13), ()),
    (
        catch(CatchKind.PORT, 0x80, 0x80),
        (r"OUT of 0x5a to port 0x80 \(1 byte\)", r"OUT of 0x\w+ to port 0x7f \(2 bytes\)"),
    ),
    (catch(CatchKind.PORT, 0x61, 0x61, access=Access.READ), (r"IN of 0x\w+ from port 0x61",)),
    (catch(CatchKind.PORT, 0x61, 0x61, access=Access.WRITE), ()),
    (catch(CatchKind.MSR, classes=MSR_BOTH), ("RDMSR of MSR 0x277", "WRMSR of 0x7040600070406 to MSR 0x277")),
    (catch(CatchKind.MSR, 0x277, access=Access.WRITE, classes=int(InstructionClass.WRMSR)), ("WRMSR of",)),
    (catch(CatchKind.MSR, 0x10, classes=MSR_BOTH), ()),
    (catch(CatchKind.MAGIC, classes=PLAIN_CLASSES[CatchKind.MAGIC]), ("about to execute xchg bx, bx",)),
    (catch(CatchKind.TABLE, classes=int(TABLES["gdtr"])), ("about to execute lgdt",)),
    (catch(CatchKind.TABLE, classes=int(TABLES["tr"])), ("about to execute ltr ax",)),
    (
        catch(CatchKind.CR, 0, classes=PLAIN_CLASSES[CatchKind.CR]),
        ("mov cr0, eax: CR0 0x60000010 to 0x60000011", "mov cr0, eax: CR0 0x60000019 to 0x60000018"),
    ),
    (catch(CatchKind.CR, 0, mask=1, classes=PLAIN_CLASSES[CatchKind.CR]), ("CR0 0x60000010 to", "CR0 0x60000019 to")),
    (catch(CatchKind.CR, 0, mask=1 << 31, classes=PLAIN_CLASSES[CatchKind.CR]), ()),
    (catch(CatchKind.CR, 3, classes=PLAIN_CLASSES[CatchKind.CR]), ()),
    (catch(CatchKind.MODE), ("real to 16-bit protected", "16-bit protected to big real")),
    (catch(CatchKind.TASK), ("task switch: TR 0018 to 0020",)),
    (
        catch(CatchKind.SEGMENT, classes=SEGMENTS["ds"]),
        ("mov ds, ax; now at f000:", "mov ds, ax; now at 0008:", "mov ds, ax; now at f000:"),
    ),
    (catch(CatchKind.PHYSICAL, 0xF0000, access=None), ("execution at physical 0xf0000",)),
    (catch(CatchKind.SERIAL, pattern=re.compile("hi")), ("serial sent 'hi'",)),
    (catch(CatchKind.SERIAL, pattern=re.compile("h.?")), (r"serial sent 'h\.\?'", r"serial sent 'h\.\?'")),
    (catch(CatchKind.COUNT, 50), ("50 instructions retired",)),
)  # fmt: skip


@pytest.mark.parametrize(("event", "words"), CAUGHT, ids=[f"{n}-{e.kind.value}" for n, (e, _) in enumerate(CAUGHT)])
def test_each_event_stops_at_its_place(guest: Debugger, event: Catch, words: tuple[str, ...]) -> None:
    guest.add_catch(event)
    if event.kind is CatchKind.PHYSICAL:  # the CPU starts at FFFFFFF0h; the far jump leads to F0000h
        guest.begin_step()
        guest.run()
        assert guest.last_stop.linear_pc == 0xF0000
        guest.reset()
    texts = list(run(guest))
    assert len(texts) == len(words), texts
    for text, expected in zip(texts, words, strict=True):
        assert re.search(expected, text), text


#: INT3 and INTO, which raise the exceptions #BP and #OF, and INT 3 and INT 4, which are software interrupts to the same
#: handlers (SDM vol. 3A, 6.4.2); with prefixes, too.
SAME_VECTORS = rom(
    """
    mov ss, ax
    mov sp, 0x7000
    mov word [3*4], handler
    mov word [3*4+2], 0xf000
    mov word [4*4], handler
    mov word [4*4+2], 0xf000
    jmp begin
    times 0x100-($-$$) nop
begin:
    int3             ; 0100
    db 0xcd, 3       ; 0101
    mov al, 0x7f     ; 0103
    add al, 1        ; 0105
    into             ; 0107
    int 4            ; 0108
    es int3          ; 010a
    db 0x2e, 0xcd, 3 ; 010c
    add al, 0x80     ; 010f
    db 0x66, 0x90    ; 0111
    db 0x66, 0xce    ; 0113
    cmp al, al       ; 0115
    into             ; 0117, without OF: nothing
    cli
    hlt
handler:
    iret
    """
)
RAISED = {0x100: "exception #BP", 0x107: "exception #OF", 0x10A: "exception #BP", 0x113: "exception #OF"}
CALLED = {0x101: "INT 0x03", 0x108: "INT 0x04", 0x10C: "INT 0x03"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (catch(CatchKind.EXCEPTION), RAISED),
        (catch(CatchKind.EXCEPTION, 3), {at: text for at, text in RAISED.items() if "#BP" in text}),
        (catch(CatchKind.EXCEPTION, 4), {at: text for at, text in RAISED.items() if "#OF" in text}),
        (catch(CatchKind.INT), CALLED),
        (catch(CatchKind.INT, 3), {at: text for at, text in CALLED.items() if "3" in text}),
        (catch(CatchKind.INT, 4), {at: text for at, text in CALLED.items() if "4" in text}),
    ],
    ids=["exceptions", "#BP", "#OF", "ints", "INT 3", "INT 4"],
)
@pytest.mark.parametrize("loop", ["", pytest.param("gate", marks=pytest.mark.slow)])
def test_int3_and_into_raise_exceptions_and_int_n_with_their_vectors_does_not(
    monkeypatch: pytest.MonkeyPatch, loop: str, event: Catch, words: dict[int, str]
) -> None:
    monkeypatch.setenv("V2E_ENGINE", loop)
    guest = debugger(SAME_VECTORS)
    guest.add_catch(event)
    assert [text.split("; ")[0] for text in run(guest)] == [f"catch 1: {words[at]} at f000:{at:04x}" for at in words]


def test_hardware_interrupts_stop_in_their_handler(guest: Debugger) -> None:
    guest.add_catch(catch(CatchKind.INTERRUPT, 8))
    texts = list(run(guest))
    assert len(texts) > 3
    assert all(re.search("hardware interrupt 0x08; now at f000:", text) for text in texts)


def test_physical_accesses_are_seen_by_any_segment(guest: Debugger) -> None:
    guest.add_catch(catch(CatchKind.PHYSICAL, 0x500, 0x503, access=Access.WRITE))
    guest.set_limit(200_000)
    guest.begin_continue()
    stop = guest.run()
    assert stop.kind is StopKind.WATCHPOINT
    assert "wrote 0x1 (4 bytes) at physical 0x500" in stop.text


def test_conditions_and_counts_hold_for_events_too(guest: Debugger) -> None:
    live = guest.live_cpu()
    guest.add_catch(
        catch(CatchKind.SEGMENT, classes=SEGMENTS["ds"]),
        condition=Condition("ax", lambda: live.regs[0] & 0xFFFF == 16),
    )
    (text,) = run(guest)
    assert "now at 0008:" in text


def test_a_count_that_has_passed_is_refused(guest: Debugger) -> None:
    guest.begin_step(10)
    guest.run()
    with pytest.raises(DebuggerError, match="10 instructions have retired already"):
        guest.add_catch(catch(CatchKind.COUNT, 10))


def test_stops_on_events_change_nothing_of_the_run(guest: Debugger) -> None:
    def end(armed: bool) -> object:
        guest.reset()
        points = [guest.add_catch(event) for event, _ in CAUGHT if event.kind is not CatchKind.COUNT] if armed else []
        points += [guest.add_catch(catch(CatchKind.INTERRUPT))] if armed else []
        stops = len(list(run(guest, 100_000)))
        assert (stops > 20) == armed
        for point in points:
            guest.remove_breakpoint(point.id)
        return guest.fingerprint()

    plain = end(armed=False)
    assert end(armed=True) == plain
    assert end(armed=False) == plain


def test_steps_stop_at_events_too(guest: Debugger) -> None:
    guest.add_catch(catch(CatchKind.PORT, 0x80, 0x80))
    guest.begin_step(1000)
    stop = guest.run()
    assert stop.kind is StopKind.CATCH
    assert "OUT of 0x5a" in stop.text


def test_a_stop_before_an_instruction_is_left_by_the_next_step(guest: Debugger) -> None:
    guest.add_catch(catch(CatchKind.MAGIC, classes=PLAIN_CLASSES[CatchKind.MAGIC]))
    guest.begin_continue()
    before = guest.run()
    guest.begin_step()
    after = guest.run()
    assert after.kind is StopKind.STEP
    assert after.linear_pc == before.linear_pc + 2
    assert after.retired == before.retired + 1


#: The mnemonics of capstone, an independent decoder, by class. What it decodes is what the class must be.
MNEMONICS = {
    "iret": InstructionClass.IRET, "iretd": InstructionClass.IRET, "iretq": InstructionClass.IRET,
    "lgdt": InstructionClass.LGDT, "lidt": InstructionClass.LIDT, "lldt": InstructionClass.LLDT,
    "ltr": InstructionClass.LTR, "rdmsr": InstructionClass.RDMSR, "wrmsr": InstructionClass.WRMSR,
    "clts": InstructionClass.CONTROL, "lmsw": InstructionClass.CONTROL,
}  # fmt: skip


def expected_class(mnemonic: str, operands: str) -> int:
    first = operands.split(",")[0]
    if mnemonic in ("mov", "pop") and first in SEGMENTS and (mnemonic, first) not in (("mov", "cs"), ("pop", "cs")):
        return SEGMENTS[first]
    if mnemonic in ("les", "lds", "lss", "lfs", "lgs"):
        return SEGMENTS[mnemonic[1:]]
    if mnemonic == "mov" and re.match(r"cr\d", first):
        return int(InstructionClass.CONTROL)
    if mnemonic == "xchg" and operands == "bx, bx":
        return int(InstructionClass.MAGIC)
    value = int(MNEMONICS.get(mnemonic, 0))
    if value == InstructionClass.IRET or mnemonic in (
        "ljmp", "lcall", "retf", "retfq", "int", "int1", "int3", "into", "syscall", "sysret", "sysenter", "sysexit",
    ):  # fmt: skip
        value |= SEGMENTS["cs"]
    return value


_OPCODES = """0f00 0f01 0f06 0f22 0f30 0f32 0fa1 0fa9 0fb2 0fb4 0fb5 8e c4 c5 ff 87db cf cd cb ca ea 07 17 1f 9a cc ce
f1 0f05 0f07 0f34 0f35 90 8b 87"""
_HEADS = st.sampled_from([bytes.fromhex(opcode) for opcode in _OPCODES.split()])
_PREFIXES = st.lists(st.sampled_from([0x66, 0x67, 0x2E, 0x36, 0x48, 0x41, 0x4C]), max_size=2).map(bytes)


@pytest.mark.slow
@given(_PREFIXES, _HEADS, st.binary(min_size=12, max_size=12), st.sampled_from([16, 32, 64]))
@settings(max_examples=600, deadline=None)
def test_classes_are_those_of_another_decoder_and_alike_in_c(
    prefix: bytes, head: bytes, tail: bytes, bits: int
) -> None:
    code = (prefix + head + tail)[:15]
    found = classify(code, bits)
    if isinstance(HELPER, Helper):
        assert HELPER.class_of(code, len(code), bits) == found
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    decoded = next(iter(capstone.Cs(capstone.CS_ARCH_X86, modes[bits]).disasm_lite(code, 0, 1)), None)
    if decoded is not None and found != (wanted := expected_class(decoded[2], decoded[3])):
        # Only what capstone refuses or names otherwise may differ, and none of what is asked about.
        assert not wanted, (code.hex(), bits, decoded)
