"""Exceptions are delivered as the SDM says, recorded, and counted alike at any slice."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import CODE, TABLES, BareCpu, bare_cpu
from emu.engine import ExitReason
from emu.unicorn_engine import HELPER

SLICES = (1, 2, 3, 7, 1000)
IDT = 0x2000

#: 32-bit: every vector below 34h leads to its own stub, which writes vector, error code (or -1) and the saved EIP to
#: ports, sets the saved EIP to EBX and returns; vectors of WITH_CODE drop their code.
STUBS = """
%macro stub 1
    %if %1=8 || (%1>=10 && %1<=14) || %1=17
    push dword %1
    %else
    push dword -1
    push dword %1
    %endif
    jmp join
    align 16
%endmacro
align 16
stubs:
%assign i 0
%rep 0x34
stub i
%assign i i+1
%endrep
join:
    pop eax
    out 0x80, eax
    pop eax
    out 0x81, eax
    mov eax, [esp]
    out 0x82, eax
    mov [esp], ebx
    iretd
"""


def protected(body: str, tail: str = "") -> BareCpu:
    """32-bit flat code with the stubs; EBX is where handlers return to (set it before each fault)."""
    source = f"""
        mov edi, {IDT}
        mov eax, stubs
        mov ecx, 0x34
    fill:
        mov [edi], ax
        mov word [edi+2], 8
        mov dword [edi+4], 0x8e00
        add eax, 16
        add edi, 8
        loop fill
        lidt [idtr]
        {body}
        hlt
    idtr: dw 0x34 * 8 - 1
        dd {IDT}
        {tail}
        {STUBS}
    """
    return bare_cpu(source, 32)


def reported(cpu: BareCpu) -> list[tuple[int, int, int]]:
    """(vector, error code, saved EIP) of each exception that reached its stub."""
    values = [value for _, port, _, value in cpu.outs if port in (0x80, 0x81, 0x82)]
    return [(values[i], values[i + 1], values[i + 2]) for i in range(0, len(values), 3)]


NONE = 0xFFFFFFFF

#: body with label `site` (the faulting instruction) and `on` (where to go on); vector, code, saved EIP ("site" or "on")
CASES = {
    "divide error": ("xor ecx, ecx\nsite: div ecx\non:", 0, NONE, "site"),
    "int3": ("site: int3\non:", 3, NONE, "on"),
    "int n": ("site: int 0x30\non:", 0x30, NONE, "on"),
    "into": ("mov al, 0x7f\nadd al, 1\nsite: into\non:", 4, NONE, "on"),
    "bound": (
        "mov dword [0x5000], 1\nmov dword [0x5004], 2\nmov eax, 5\nsite: bound eax, [0x5000]\non:",
        5,
        NONE,
        "site",
    ),
    "invalid opcode": ("site: ud2\non:", 6, NONE, "site"),
    "int 6": ("site: int 6\non:", 6, NONE, "on"),
    "no FPU": ("mov eax, cr0\nor eax, 4\nmov cr0, eax\nsite: fld1\non:", 7, NONE, "site"),
    "selector past the GDT": ("mov ax, 0x100\nsite: mov ds, ax\non:", 13, 0x100, "site"),
    "prefixed int n": ("site: es int 0x30\non:", 0x30, NONE, "on"),
    # SDM vol. 3A, 6.13: IDT bit set; the saved EIP is that of the INT, which has not completed
    "int n past the IDT": ("site: int 0x90\non:", 13, 0x90 * 8 + 2, "site"),
    "prefixed int n past the IDT": ("site: es int 0x90\non:", 13, 0x90 * 8 + 2, "site"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_handler_sees_vector_code_and_address(name: str) -> None:
    body, vector, code, saved = CASES[name]
    results = []
    for size in SLICES:
        cpu = protected("mov ebx, on\n" + body, "dd site, on")
        assert cpu.run(slice=size).reason is ExitReason.HALT
        results.append((cpu.engine.retired, cpu.outs, cpu.faults, cpu.engine.state(), cpu.memory.save()))
    assert all(result == results[0] for result in results)
    at = _labels(cpu)[saved]
    assert reported(cpu) == [(vector, code, at)]


def _labels(cpu: BareCpu) -> dict[str, int]:
    idtr = CODE + cpu.read(CODE, 0x200).index((0x34 * 8 - 1).to_bytes(2, "little") + IDT.to_bytes(4, "little"))
    return {"site": cpu.read32(idtr + 6), "on": cpu.read32(idtr + 10)}


@pytest.mark.parametrize(
    ("code", "bits", "own"),
    [
        ("int3", 32, True), ("into", 32, True), ("db 0xcd, 3", 32, False), ("int 4", 32, False), ("es int3", 32, True),
        ("db 0x2e, 0xcd, 3", 32, False), ("int3", 64, True), ("db 0x48, 0xcc", 64, True), ("db 0xcd, 3", 64, False),
        ("int 4", 64, False), ("ud2", 32, False),
    ],
)  # fmt: skip
def test_a_fault_says_whether_int3_or_into_has_raised_it(code: str, bits: int, own: bool) -> None:
    """Their vectors alone do not: INT n may have them, too (SDM vol. 3A, 6.4.2 and 6.4.4)."""
    cpu = bare_cpu(f"pushf\nor dword [{'r' if bits == 64 else 'e'}sp], 0x800\npopf\n{code}\nhlt", bits)
    cpu.run()  # to a triple fault, there is no IDT
    first = cpu.faults[0]
    assert (first.by_own_opcode, first.is_exception) == (own, own or code == "ud2")
    assert first.software is (code != "ud2")


def test_faults_are_recorded_before_they_are_delivered() -> None:
    cpu = protected("mov ebx, on\nnop\nsite: int 0x90\non: mov ebx, on2\nsite2: int 0x30\non2:", "dd site, on")
    cpu.run()
    at = _labels(cpu)["site"]
    first, second, third = cpu.faults
    assert (first.vector, first.code, first.software, first.linear) == (0x90, None, True, at)
    assert (second.vector, second.code, second.software, second.linear) == (13, 0x90 * 8 + 2, False, at)
    assert (third.vector, third.code, third.software) == (0x30, None, True)
    assert first.retired == second.retired
    assert first.cs == 8
    assert cpu.outs[0][0] == first.retired + 1 + 3  # the INT, then the stub's jump, pop and out


def test_a_real_mode_fault_goes_through_the_ivt_without_code() -> None:
    cpu = bare_cpu("mov word [0], h\nmov word [2], 0\nxor bl, bl\nsite: div bl\nhlt\nh: pop ax\nhlt")
    assert cpu.run().reason is ExitReason.HALT
    [fault] = cpu.faults
    assert (fault.vector, fault.code, fault.retired, fault.software) == (0, None, 3, False)
    assert cpu.engine.state().regs[0] == fault.rip == fault.linear


def test_an_illegal_access_before_the_handler_exists_is_a_triple_fault_with_its_chain() -> None:
    cpu = bare_cpu("nop\nmov ax, 0x100\nmov ds, ax\nhlt", 32)
    state = cpu.engine.state()
    state.idtr.limit = 0
    cpu.engine.load(state)
    exit = cpu.engine.run(100)
    assert exit.reason is ExitReason.SHUTDOWN
    assert exit.executed == 3
    assert [(f.vector, f.code) for f in exit.faults] == [(13, 0x100), (8, 0)]
    assert cpu.engine.run(100).executed == 0
    cpu.engine.load(state)
    assert cpu.engine.run(1).reason is ExitReason.BUDGET


@pytest.mark.parametrize("size", SLICES)
def test_page_faults_carry_cr2_and_code(size: int) -> None:
    cpu = bare_cpu(
        f"""
        lidt [idtr]
        mov byte [0x5123], 1
        nop
        mov byte [0x6456], 1
        hlt
        handler:
        pop rax
        out 0x81, eax
        mov rax, cr2
        out 0x82, eax
        mov rsi, rax
        shr rsi, 12
        or dword [{TABLES + 0x3000} + rsi*8], 3
        invlpg [rax]
        iretq
        idtr: dw 0xfff
        dd {IDT}
        dd 0, handler
        """,
        64,
    )
    cpu.write(TABLES + 0x3000 + 8 * 5, (0x5000).to_bytes(8, "little"))  # not present
    cpu.write(TABLES + 0x3000 + 8 * 6, (0x6001).to_bytes(8, "little"))  # read-only; WP is clear: no fault
    image = cpu.read(CODE, 0x100)
    handler = image[image.index((0xFFF).to_bytes(2, "little") + IDT.to_bytes(4, "little")) + 10 :][:4]
    entry = int.from_bytes(handler, "little") | 0x18 << 16 | 0x8E00 << 32
    cpu.write(IDT + 14 * 16, entry.to_bytes(8, "little"))
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert [(port, value) for _, port, _, value in cpu.outs] == [(0x81, 2), (0x82, 0x5123)]
    assert [(f.vector, f.code, f.cr2) for f in cpu.faults] == [(14, 2, 0x5123)]
    assert cpu.engine.retired == 2 + 9 + 4


@pytest.mark.parametrize("size", SLICES)
def test_a_faulting_fetch_counts_once_and_keeps_budgets_exact(size: int) -> None:
    results = []
    for chunk in (size, 5):
        cpu = bare_cpu(
            f"""
            lidt [idtr]
            mov rax, 0x8000
            call rax
            hlt
            handler:
            add rsp, 8
            or dword [{TABLES + 0x3000 + 8 * 8}], 3
            invlpg [0x8000]
            iretq
            idtr: dw 0xfff
            dd {IDT}
            dd 0, handler
            """,
            64,
        )
        cpu.write(0x8000, assemble("bits 64\nnop\nret"))
        cpu.write(TABLES + 0x3000 + 8 * 8, (0x8000).to_bytes(8, "little"))
        image = cpu.read(CODE, 0x100)
        handler = image[image.index((0xFFF).to_bytes(2, "little") + IDT.to_bytes(4, "little")) + 10 :][:4]
        entry = int.from_bytes(handler, "little") | 0x18 << 16 | 0x8E00 << 32
        cpu.write(IDT + 14 * 16, entry.to_bytes(8, "little"))
        counts = []
        while (exit := cpu.engine.run(chunk)).reason is not ExitReason.HALT:
            assert exit.executed == chunk
            counts.append(cpu.engine.retired)
        results.append((cpu.engine.retired, cpu.faults, cpu.engine.state(), cpu.memory.save()))
    assert results[0] == results[1]
    assert [(f.vector, f.linear, f.retired) for f in cpu.faults] == [(14, 0x8000, 3)]
    assert cpu.engine.retired == 3 + 1 + 4 + 2 + 1


def test_endless_fetch_faults_can_be_stopped() -> None:
    # The #PF handler itself is not mapped: only the budget ends this, long before the stack runs out.
    cpu = bare_cpu("jmp [target]\ntarget: dq 0x8000", 64)
    state = cpu.engine.state()
    state.idtr.base, state.idtr.limit = IDT, 0xFFF
    state.regs[4] = 0x3FFFF0
    cpu.engine.load(state)
    cpu.write(TABLES + 0x3000 + 8 * 8, bytes(8))
    cpu.write(IDT + 14 * 16, (0x8000 | 0x18 << 16 | 0x8E00 << 32).to_bytes(8, "little"))
    assert cpu.engine.run(50).executed == 50
    cpu.engine.on_fault(lambda _: cpu.engine.request_stop())
    assert cpu.engine.run(1000).executed == 1


@pytest.mark.parametrize("size", SLICES)
def test_single_step_traps_come_after_each_instruction(size: int) -> None:
    cpu = protected(
        "mov ebx, 0\npushfd\nor dword [esp], 0x100\npopfd\nnop\nnop\nhlt",
    )
    cpu.write(0x6000, assemble("bits 32\ninc dword [0x5000]\niretd"))
    while cpu.engine.state().idtr.base != IDT:
        cpu.engine.run(1)
    cpu.write(IDT + 8, (0x6000 | 8 << 16 | 0x8E00 << 32).to_bytes(8, "little"))
    assert cpu.run(10_000, slice=size).reason is ExitReason.HALT
    # after each of the two NOPs; the flag set by POPF takes effect behind the following instruction
    assert cpu.read32(0x5000) == 2


def test_an_execution_breakpoint_of_dr0_is_met_before_its_instruction() -> None:
    cpu = protected(
        "mov ebx, on\nmov eax, site\nmov dr0, eax\nmov eax, 1\nmov dr7, eax\nnop\nsite: inc ecx\non:", "dd site, on"
    )
    assert cpu.run().reason is ExitReason.HALT
    assert reported(cpu) == [(1, NONE, _labels(cpu)["site"])]
    assert cpu.engine.state().dr[6] & 0xF == 1


def test_a_loaded_debug_register_breaks_too() -> None:
    cpu = protected("mov ebx, on\nnop\nsite: inc ecx\non:", "dd site, on")
    state = cpu.engine.state()
    state.dr[0], state.dr[7] = _labels(cpu)["site"], 0x401
    cpu.engine.load(state)
    assert cpu.run().reason is ExitReason.HALT
    assert reported(cpu) == [(1, NONE, _labels(cpu)["site"])]
    state = cpu.engine.state()
    assert (state.dr[0], state.dr[7]) == (_labels(cpu)["site"], 0x401)


@pytest.mark.parametrize("size", SLICES)
def test_data_breakpoints_trap_behind_the_access(size: int) -> None:
    # SDM vol. 3B, 18.2.4: DR7 R/W 01 with LEN 11 in DR1: writes to 4 bytes; #DB is a trap, DR6.B1 says which
    cpu = protected(
        """
        mov ebx, hit
        mov eax, 0x5000
        mov dr1, eax
        mov eax, 0x00d00004
        mov dr7, eax
        mov eax, [0x5000]
        mov byte [0x5004], 1
        mov byte [0x5003], 1
        site: nop
        ud2
        hit:
        mov ebx, on
        mov eax, 0x6000
        mov dr1, eax
        mov byte [0x5003], 1
        mov dword [0x5ffe], 1
        on:
        """,
        "dd on, 0",
    )
    assert cpu.run(slice=size).reason is ExitReason.HALT
    assert [vector for vector, _, _ in reported(cpu)] == [1, 1]
    assert reported(cpu)[1][2] == _labels(cpu)["site"]  # the words behind the IDTR hold `on` here
    assert [fault.retired for fault in cpu.faults] == [out[0] - 5 for out in cpu.outs if out[1] == 0x80]
    assert cpu.engine.state().dr[6] & 0xF == 2


def test_a_data_breakpoint_of_a_loaded_state_traps_in_a_single_step() -> None:
    cpu = protected("mov ebx, on\nmov byte [0x5000], 1\nsite: nop\non:", "dd site, on")
    while cpu.read(cpu.engine.linear_pc, 2) != b"\xc6\x05":
        cpu.engine.run(1)
    state = cpu.engine.state()
    state.dr[2], state.dr[7] = 0x5000, 0x01000420  # R/W2 01, LEN2 00
    cpu.engine.load(state)
    assert cpu.engine.run(1).executed == 1
    assert [(fault.vector, fault.rip) for fault in cpu.faults] == [(1, _labels(cpu)["site"])]
    assert cpu.run().reason is ExitReason.HALT
    assert reported(cpu) == [(1, NONE, _labels(cpu)["site"])]


USER = """
    mov eax, 0x28
    ltr ax
    mov ax, 0x3b
    mov word [0x3000 + 0x66], 0x68
    mov byte [0x3000 + 0x68 + 0x70 / 8], 1
    mov byte [0x3000 + 0x68 + 0x100 / 8], 0xff
    mov dword [0x3000 + 4], 0x7000
    mov dword [0x3000 + 8], 0x10
    push 0x43
    push 0x6800
    push {flags}
    push 0x3b
    push user
    iretd
    user:
    mov al, 1
    {access}
    site: {then}
    on: ud2
"""


@pytest.mark.parametrize("size", SLICES)
@pytest.mark.parametrize(
    ("access", "flags", "vectors"),
    [
        ("out 0x70, al", 0x2, [13]),
        ("in ax, 0x6f", 0x2, [13]),
        ("in eax, 0x6d", 0x2, [13]),
        ("out 0x71, al", 0x2, []),
        ("out 0x70, al", 0x3002, []),  # IOPL 3
        ("mov dx, 0x2000\nin al, dx", 0x2, [13]),  # beyond the TSS
    ],
)
def test_ports_outside_ring_0_ask_iopl_and_the_permission_bitmap(
    access: str, flags: int, vectors: list[int], size: int
) -> None:
    # SDM vol. 1, 19.5.1 and 19.5.2
    cpu = protected(USER.format(flags=flags, access=access, then="nop"), "dd site, on")
    words = (
        0,
        0x00CF9B000000FFFF,
        0x00CF93000000FFFF,
        0,
        0,
        0x0000890030000080,
        0,
        0x00CFFB000000FFFF,
        0x00CFF3000000FFFF,
    )
    table = b"".join(word.to_bytes(8, "little") for word in words)
    cpu.write(0x800, table)
    state = cpu.engine.state()
    state.gdtr.limit = len(table) - 1
    cpu.engine.load(state)
    cpu.run(2000, slice=size)
    found = [fault.vector for fault in cpu.faults if fault.vector in (6, 13)]
    assert found[: len(vectors) or 1] == (vectors or [6])
    user = [port for _, port, _, _ in cpu.outs if port in (0x70, 0x71)]
    assert bool(user) == (not vectors and access.startswith("out"))


def test_a_fault_in_delivering_an_exception_sets_ext_in_its_code() -> None:
    # SDM vol. 3A, 6.13: EXT says that the event being delivered came from no INT instruction.
    cpu = protected("mov ebx, on\nmov word [0x2000 + 6 * 8 + 4], 0x0e00\nsite: ud2\non:", "dd site, on")
    assert cpu.run().reason is ExitReason.HALT
    assert reported(cpu) == [(11, 6 * 8 + 2 + 1, _labels(cpu)["site"])]


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(("value", "refused"), [(0xFFFF, False), (0x1F80, False), (0x11F80, True), (0x80001F80, True)])
def test_ldmxcsr_of_reserved_bits_is_a_general_protection_fault(value: int, refused: bool) -> None:
    """SDM vol. 2A, LDMXCSR; the bits above MXCSR_MASK (FFFFh) are reserved (vol. 1, 11.6.6)."""
    cpu = bare_cpu(f"mov eax, cr4\nor eax, 0x200\nmov cr4, eax\npush dword {value:#x}\nldmxcsr [esp]\nhlt", 32)
    cpu.run()
    assert [(fault.vector, fault.code, fault.retired) for fault in cpu.faults[:1]] == [(13, 0, 4)] * refused
