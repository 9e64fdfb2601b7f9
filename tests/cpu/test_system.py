"""System instructions, MSRs and CPU models, in both run loops. Expectations: SDM vol. 2B and 3, APM vol. 3, QEMU."""

from __future__ import annotations

import pytest

import oracles
from asm import assemble
from bare_cpu import CODE, GDT, STACK, TABLES, BareCpu, bare_cpu, flat_state
from emu.debugger import Debugger
from emu.engine import ExitReason
from emu.machine import MachineConfig, MachineError, build_machine
from emu.unicorn_helper import HELPER
from emu.x86.state import Table

EFER, STAR, LSTAR, _, FMASK = (0xC0000080 + n for n in range(5))
DB, UD, GP = 1, 6, 13


@pytest.fixture(params=["fast", "gate"], autouse=True)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "gate":
        monkeypatch.setenv("V2E_ENGINE", "gate")
    return str(request.param)


def wrmsr(number: int, value: int) -> str:
    return f"mov ecx, {number:#x}\nmov eax, {value & 0xFFFFFFFF:#x}\nmov edx, {value >> 32:#x}\nwrmsr\n"


def run(source: str, bits: int, model: str = "max", ring: int = 0) -> BareCpu:
    """Run `source` to its HLT, or to its first exception."""
    state = None
    cpu = bare_cpu(source, bits, model=model)
    if ring:
        state = cpu.engine.state()
        for name in ("cs", "ss"):
            segment = state.segment(name)
            segment.selector |= ring
            segment.access |= ring << 5
        cpu.engine.load(state)
    while not cpu.faults and cpu.engine.run(1).reason is ExitReason.BUDGET:
        assert cpu.engine.retired < 1000
    return cpu


def fault(source: str, bits: int, model: str = "max", ring: int = 0) -> int | None:
    cpu = run(f"{source}\nhlt", bits, model, ring)
    return cpu.faults[0].vector if cpu.faults else None


SETUP64 = wrmsr(EFER, 0x501) + wrmsr(STAR, 0x002B_0018_0000_0000) + wrmsr(FMASK, 0x4_0701)


@pytest.mark.parametrize("model", ["max", "qemu64"])
def test_syscall_in_64_bit_mode_goes_to_lstar(model: str) -> None:
    source = f"{SETUP64}{wrmsr(LSTAR, CODE + 0x200)}stc\nsti\nsyscall\nnext: hlt\ntimes 0x200-($-$$) nop\nhlt"
    cpu = run(source, 64, model)
    state = cpu.engine.state()
    assert (cpu.faults, state.rip) == ([], CODE + 0x201)
    assert (state.cs.selector, state.ss.selector, state.cpl) == (0x18, 0x20, 0)
    assert (state.cs.access, state.ss.access) == (0xA09B, 0xC093)
    assert (state.cs.base, state.cs.limit, state.ss.base, state.ss.limit) == (0, 0xFFFFFFFF, 0, 0xFFFFFFFF)
    assert state.regs[11] & 0x301 == 0x201, "R11 has the flags before FMASK"
    assert state.rflags & 0x301 == 0
    assert cpu.read(state.regs[1] - 2, 2) == b"\x0f\x05", "RCX is behind SYSCALL"


@pytest.mark.parametrize("model", ["max", "qemu64"])
def test_sysret_to_64_bit_code_enters_ring_3_with_the_flags_of_r11(model: str) -> None:
    source = f"{SETUP64}mov rcx, 0x2000\nmov r11, 0x30247\no64 sysret"
    cpu = run(source, 64, model)
    state = cpu.engine.state()
    assert cpu.faults[0].linear == 0x2000
    assert (cpu.faults[0].vector, cpu.faults[0].cs) == (14, 0x3B)
    assert (state.ss.selector, state.rflags & 0x20247) == (0x33, 0x247), "VM is not taken"


@pytest.mark.parametrize(("leave", "vector"), [("o64 sysret", DB), ("iretq", UD)])
def test_sysret_does_not_take_rf_from_r11_as_iret_does_from_its_frame(leave: str, vector: int) -> None:
    """RF would pass over the execution breakpoint on the instruction returned to, an UD2."""
    user, flags = 0x2000, 0x10202
    frame = f"push 0x33\npush {STACK}\npush {flags}\npush 0x3b\npush {user}"
    breakpoint = f"mov eax, {user}\nmov dr0, rax\nmov eax, 0x401\nmov dr7, rax"
    source = f"{SETUP64}{breakpoint}\nmov ecx, {user}\nmov r11d, {flags}\n{frame}\n{leave}"
    cpu = bare_cpu(source, 64)
    cpu.write(user, b"\x0f\x0b")
    for table in range(TABLES, TABLES + 0x5000, 8):  # user pages
        entry = int.from_bytes(cpu.read(table, 8), "little")
        if entry & 1:
            cpu.write(table, (entry | 4).to_bytes(8, "little"))
    state = cpu.engine.state()
    state.gdtr = Table(GDT, 0x3F)
    cpu.write(GDT + 0x30, (0x00CFF3000000FFFF).to_bytes(8, "little") + (0x00AFFB000000FFFF).to_bytes(8, "little"))
    cpu.engine.load(state)
    while not cpu.faults and cpu.engine.run(1).reason is ExitReason.BUDGET:
        assert cpu.engine.retired < 100
    assert [(f.vector, f.linear, f.cs) for f in cpu.faults][:1] == [(vector, user, 0x3B)]


def test_intel_checks_the_target_of_sysret_in_ring_0() -> None:
    source = f"{SETUP64}mov rcx, 0x800000000000\no64 sysret"
    assert run(source, 64, "max").faults[0].cs & 3 == 0
    assert fault(source, 64, "max") == GP


@pytest.mark.parametrize("instruction", ["syscall", "o64 sysret"])
def test_without_sce_they_are_undefined(instruction: str) -> None:
    assert fault(instruction, 64) == UD


def test_syscall_outside_64_bit_mode_is_amds_only() -> None:
    source = wrmsr(EFER, 1) + wrmsr(STAR, 8 << 32 | CODE + 0x100) + "sti\nsyscall\ntimes 0x100-($-$$) nop\nhlt"
    assert fault(source, 32, "max") == UD
    cpu = run(source, 32, "qemu64")
    state = cpu.engine.state()
    assert (cpu.faults, state.rip, state.cs.selector, state.ss.selector) == ([], CODE + 0x101, 8, 16)
    assert not state.rflags & 0x200


@pytest.mark.parametrize(("model", "ring", "vector"), [("qemu64", 3, GP), ("qemu64", 0, None), ("max", 0, UD)])
def test_sysret_in_protected_mode_needs_ring_0_and_amd(model: str, ring: int, vector: int | None) -> None:
    cpu = bare_cpu("sysret", 32, model=model)
    state = flat_state()
    state.efer, state.msrs[STAR], state.regs[1] = 1, 0x1B << 48, 0x2000
    for name in ("cs", "ss"):
        state.segment(name).access |= ring << 5
    cpu.engine.load(state)
    cpu.engine.run(1)
    after = cpu.engine.state()
    if vector is None:
        assert (cpu.faults, after.rip, after.cs.selector, after.cpl, after.rflags & 0x200) == (
            [],
            0x2000,
            0x1B,
            3,
            0x200,
        )
    else:
        assert [f.vector for f in cpu.faults][:1] == [vector]


@pytest.mark.parametrize(
    ("source", "bits", "model", "ring", "vector"),
    [
        ("rdtsc", 32, "486", 0, UD), ("rdtsc", 32, "pentium", 0, None), ("rdtsc", 32, "pentium", 3, None),
        ("mov eax, 4\nmov cr4, eax\nrdtsc", 32, "max", 0, None),
        ("rdtscp", 32, "pentium3", 0, UD), ("rdtscp", 32, "qemu64", 0, UD), ("rdtscp", 32, "max", 0, None),
        ("xor ecx, ecx\nrdmsr", 32, "486", 0, UD), ("xor ecx, ecx\nrdmsr", 32, "pentium", 0, None),
        ("mov ecx, 0x10\nrdmsr", 32, "max", 3, GP), ("mov ecx, 0x277\nrdmsr", 32, "pentium", 0, GP),
        (wrmsr(0x10, 5), 16, "max", 0, None), (wrmsr(0xC0000080, 1), 32, "pentium3", 0, GP),
        (wrmsr(0xC0000080, 0x100), 32, "pentium3", 0, GP), (wrmsr(0xC0000080, 0x100), 32, "qemu64", 0, None),
        (wrmsr(0x3A, 1) + wrmsr(0x3A, 0), 32, "max", 0, GP), (wrmsr(0x1A0, 2), 32, "max", 0, GP),
        ("xor ecx, ecx\nrdpmc", 32, "486", 0, UD), ("xor ecx, ecx\nrdpmc", 32, "pentium2", 0, None),
        ("mov ecx, 2\nrdpmc", 32, "pentium2", 0, GP), ("xor ecx, ecx\nrdpmc", 32, "max", 3, GP),
        ("sysenter", 32, "pentium", 0, UD), ("sysenter", 32, "pentium2", 0, GP), ("sysexit", 32, "pentium2", 0, GP),
        ("sysenter", 16, "max", 0, GP), ("syscall", 32, "pentium3", 0, UD),
        ("mov eax, 0x10\nmov cr4, eax", 32, "486", 0, None), ("mov eax, 0x20\nmov cr4, eax", 32, "486", 0, GP),
        ("mov eax, 0x80\nmov cr4, eax", 32, "pentium", 0, GP), ("mov eax, 0xA0\nmov cr4, eax", 32, "pentium2", 0, None),
        ("mov eax, 0x400\nmov cr4, eax", 32, "pentium2", 0, GP),
        ("mov eax, 0x600\nmov cr4, eax", 32, "pentium3", 0, None),
        ("cmove eax, ebx", 32, "pentium", 0, UD), ("cmove eax, ebx", 32, "pentium2", 0, None),
        ("fcomi st0, st1", 32, "pentium", 0, UD), ("fcomi st0, st1", 32, "pentium2", 0, None),
        ("cmpxchg8b [0x5000]", 32, "486", 0, UD), ("cmpxchg8b [0x5000]", 32, "pentium", 0, None),
        ("fxsave [0x5000]", 32, "pentium", 0, UD), ("fxsave [0x5000]", 32, "pentium2", 0, None),
        ("popcnt eax, ebx", 32, "qemu64", 0, UD), ("popcnt eax, ebx", 32, "max", 0, None),
        ("movbe eax, [0x5000]", 32, "qemu64", 0, UD), ("movbe eax, [0x5000]", 32, "max", 0, None),
        ("rdrand eax", 32, "max", 0, UD), ("pause", 32, "486", 0, None), ("cpuid", 32, "486", 0, None),
    ],
)  # fmt: skip
def test_what_a_model_denies_faults(source: str, bits: int, model: str, ring: int, vector: int | None) -> None:
    end = "jmp $" if ring else ""
    if ring and vector is None:
        cpu = run(f"{source}\nud2", bits, model, ring)
        assert cpu.faults[0].linear == CODE + len(cpu_bytes(source, bits))
        return
    assert fault(f"{source}\n{end}", bits, model, ring) == vector


#: One instruction of each extension and form: what SDM vol. 2 says each came with.
EXTENSIONS = {
    "mmx": ("emms", "movd mm0, eax", "movq mm1, [0x5000]", "paddb mm0, mm1", "psllw mm0, 3", "pmulhw mm2, [0x5000]"),
    "sse": (
        "movups xmm0, [0x5000]", "addss xmm0, xmm1", "xorps xmm0, xmm0", "rsqrtps xmm0, xmm1", "cvtpi2ps xmm0, mm0",
        "pavgb mm0, mm1", "pshufw mm0, mm1, 3", "pinsrw mm0, eax, 1", "pmovmskb eax, mm0", "psadbw mm0, mm1",
        "movntq [0x5000], mm0", "movntps [0x5000], xmm0", "ldmxcsr [0x5000]", "stmxcsr [0x5000]", "sfence",
        "shufps xmm0, xmm1, 0", "cmpps xmm0, xmm1, 0",
    ),
    "sse2": (
        "movupd xmm0, [0x5000]", "addpd xmm0, xmm1", "addsd xmm0, xmm1", "movdqa xmm0, xmm1", "movdqu xmm0, [0x5000]",
        "paddb xmm0, xmm1", "paddq mm0, mm1", "pmuludq mm0, mm1", "psubq mm0, mm1", "psllw xmm0, 3",
        "pshufd xmm0, xmm1, 3",
        "movd xmm0, eax", "movq xmm0, [0x5000]", "movnti [0x5000], eax", "lfence", "mfence", "cvtps2pd xmm0, xmm1",
        "movq2dq xmm0, mm0", "movdq2q mm0, xmm0", "cvtdq2pd xmm0, xmm1", "pslldq xmm0, 1", "punpcklqdq xmm0, xmm1",
    ),
    "sse3": (
        "haddps xmm0, xmm1", "haddpd xmm0, xmm1", "addsubps xmm0, xmm1", "movddup xmm0, xmm1", "movsldup xmm0, xmm1",
        "movshdup xmm0, xmm1", "lddqu xmm0, [0x5000]", "fisttp dword [0x5000]", "fisttp word [0x5000]",
        "fisttp qword [0x5000]",
    ),
    "sse4a": (
        "db 0x66, 0x0F, 0x78, 0xC0, 8, 0", "db 0x66, 0x0F, 0x79, 0xC1", "db 0xF2, 0x0F, 0x78, 0xC1, 8, 0",
        "db 0xF2, 0x0F, 0x79, 0xC1", "db 0xF3, 0x0F, 0x2B, 7", "db 0xF2, 0x0F, 0x2B, 7",
    ),
    "p6 nops": ("db 0x0F, 0x1F, 0xC0", "db 0x66, 0x0F, 0x1F, 0xC0", "db 0x0F, 0x18, 0x0F", "db 0x0F, 0x19, 0xC0"),
}  # fmt: skip
#: What each model has (SDM vol. 2A, table 3-11; AMD64 APM vol. 3, E.3.2).
HAS = {
    "486": (), "pentium": ("mmx",), "pentium2": ("mmx", "p6 nops"), "pentium3": ("mmx", "sse", "p6 nops"),
    "qemu64": ("mmx", "sse", "sse2", "sse3", "p6 nops"), "max": ("mmx", "sse", "sse2", "sse3", "p6 nops"),
}  # fmt: skip


@pytest.mark.slow_variants
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("model", HAS)
def test_a_model_knows_the_vector_instructions_of_its_time(model: str, bits: int, loop: str) -> None:
    if loop == "gate":
        pytest.skip("made by the C helper: docs/fidelity.md")
    if isinstance(HELPER, str):
        pytest.skip(HELPER)
    setup = "mov eax, 0x1F80\nmov [0x5000], eax\n"
    if model not in ("486", "pentium"):
        setup += "mov eax, 0x200\nmov cr4, eax\n"
    cpu = bare_cpu(model=model, bits=bits)
    start = cpu.engine.state()
    for extension, instructions in EXTENSIONS.items():
        for instruction in instructions:
            cpu.write(CODE, cpu_bytes(f"{setup}{instruction}\nhlt", bits))
            cpu.engine.load(start)
            cpu.faults.clear()
            while not cpu.faults and cpu.engine.run(1).reason is ExitReason.BUDGET:
                pass
            found = cpu.faults[0].vector if cpu.faults else None
            assert found == (None if extension in HAS[model] else UD), instruction


@pytest.mark.parametrize(
    "source", ["nop", "db 0x0F, 0x1F, 0", "pause", "prefetchnta [0x5000]", "fxch st1", "bswap eax"]
)
def test_what_only_looks_like_a_vector_instruction_is_left_alone(source: str) -> None:
    assert fault(source, 32, "pentium2") is None


@pytest.mark.parametrize("instruction", ["rdmsr", "wrmsr"])
def test_a_486_has_no_msrs_in_any_ring(instruction: str, loop: str) -> None:
    if loop == "gate" or isinstance(HELPER, str):
        pytest.skip("made by the C helper: docs/fidelity.md")
    assert fault(instruction, 32, "486", ring=3) == UD
    assert fault(instruction, 32, "pentium", ring=3) == GP


def test_a_vector_instruction_on_two_pages_is_refused_too(loop: str) -> None:
    if loop == "gate" or isinstance(HELPER, str):
        pytest.skip("made by the C helper: docs/fidelity.md")
    pad = 0x1000 - 1  # the opcode's second byte is on the next page
    cpu = run(f"jmp there\ntimes {pad}-($-$$) nop\nthere: paddb mm0, mm1\nhlt", 32, "486")
    assert (cpu.faults[0].vector, cpu.faults[0].linear) == (UD, CODE + pad)


def test_osfxsr_can_be_set_without_sse() -> None:
    cpu = run("mov eax, 0x200\nmov cr4, eax\nhlt", 32, "pentium2")
    state = cpu.engine.state()
    assert state.cr4 == 0x200
    cpu.engine.load(state)
    assert cpu.engine.state().cr4 == 0x200


def cpu_bytes(source: str, bits: int) -> bytes:
    return assemble(f"bits {bits}\n{source}", CODE)


def test_cr4_tsd_denies_rdtsc_to_ring_3() -> None:
    cpu = bare_cpu("rdtsc", 32)
    state = flat_state()
    state.cr4 = 4
    for name in ("cs", "ss"):
        state.segment(name).access |= 0x60
    cpu.engine.load(state)
    cpu.engine.run(1)
    assert cpu.faults[0].vector == GP


def test_a_written_tsc_goes_on_from_there() -> None:
    cpu = bare_cpu(f"{wrmsr(0x10, 0x500000000)}rdtsc\nhlt", 32)
    cpu.time = 1000
    cpu.engine.run(4)
    cpu.time = 1070
    cpu.engine.run(1)
    state = cpu.engine.state()
    assert (state.regs[2], state.regs[0]) == (5, 70)


def test_rdpmc_counts_instructions_exactly_in_the_middle_of_a_block() -> None:
    cpu = run("nop\nnop\nxor ecx, ecx\nrdpmc\nmov ebx, eax\nnop\nrdpmc\nhlt", 32)
    assert [cpu.engine.state().regs[i] for i in (3, 0)] == [3, 6]


def test_msrs_are_saved_and_restored() -> None:
    cpu = run(wrmsr(0x174, 0x1234) + wrmsr(0x1A0, 0x1800) + wrmsr(EFER, 1) + "hlt", 32)
    state = cpu.engine.state()
    assert (state.msrs[0x174], state.msrs[0x1A0], state.efer) == (0x1234, 0x1800, 1)
    cpu.engine.load(flat_state())
    assert cpu.engine.state().msrs[0x174] == 0
    cpu.engine.load(state)
    assert cpu.engine.state() == state


@pytest.mark.parametrize(
    "instruction", ["mov ecx, 0x277\nrdmsr", "mov ecx, 0x10\nwrmsr", "mov ecx, 0\nrdpmc", "mov cr4, eax"]
)
def test_an_int_before_an_instruction_leaves_nothing_behind(instruction: str) -> None:
    """What INT n leaves in Unicorn's state must not move EIP at the next intercept."""
    call = "mov word [0x84], handler\nmov word [0x86], 0\nint 0x21\nxor eax, eax"
    source = f"{call}\n{instruction}\nmov bx, 7\nhlt\nhandler: iret"
    cpu = bare_cpu(source, 16)
    assert cpu.run(1000).reason is ExitReason.HALT
    assert cpu.engine.state().regs[3] == 7


@pytest.mark.parametrize("flags", [0x80002, 0x100002])
def test_an_iret_that_faults_leaves_vif_and_vip_alone(flags: int) -> None:
    source = f"push dword {flags:#x}\npush dword 0x10\npush dword 0\niretd"
    cpu = run(source, 32, "max")
    assert cpu.faults[0].vector == GP
    assert cpu.engine.state().rflags & 0x180000 == 0


class Claimed:
    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []

    def read_msr(self, number: int) -> int | None:
        return 0x1122334455667788

    def write_msr(self, number: int, value: int) -> bool:
        self.written.append((number, value))
        return value != 0


def test_a_device_may_claim_an_msr() -> None:
    cpu, device = bare_cpu(f"{wrmsr(0x6E0, 7)}rdmsr\nhlt\n{wrmsr(0x6E0, 0)}", 32), Claimed()
    cpu.engine.claim_msr(0x6E0, device)
    cpu.engine.run(20)
    state = cpu.engine.state()
    assert (state.regs[2], state.regs[0], device.written) == (0x11223344, 0x55667788, [(0x6E0, 7)])


def with_vme(line: str) -> str:
    """The chips have VME (SDM vol. 3A, 20.3), and QEMU's TCG leaves it out of what its models of them tell."""
    *before, edx = line.split(" ")
    return " ".join((*before, f"{int(edx, 16) | 2:08X}")) if line.startswith("00000001 ") else line


@pytest.mark.parametrize("model", ["486", "pentium", "pentium2", "pentium3", "qemu64"])
def test_cpuid_is_qemus_of_the_same_name(model: str) -> None:
    rom = oracles.assemble_image("cpu_id")
    session = Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom, cpu=model)))
    session.begin_continue()
    session.run()
    ours = session.machine.debugcon_text().split("\n")
    # Two definitions of qemu64 are about, of which Unicorn's is the older one.
    cpu = f"{model},-apic" + (",-svm,family=6,model=6,stepping=3" if model == "qemu64" else "")
    theirs = [with_vme(line) if model.startswith("pentium") else line for line in oracles.run_qemu(rom, cpu=cpu).lines]
    leaves = (
        "00000000",
        "00000001",
        "80000000",
        "80000001",
        "80000002",
        "80000003",
        "80000004",
        "80000005",
        "80000008",
    )
    assert [line for line in ours if line[:8] in leaves] == [line for line in theirs if line[:8] in leaves]


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(MachineError, match="no CPU model is called '386'"):
        build_machine(MachineConfig(firmware=b"\xf4" * 0x10000, cpu="386"))


def test_sysenter_and_sysexit_in_long_mode_take_64_bit_pointers() -> None:
    setup = wrmsr(0x174, 0x18) + wrmsr(0x175, STACK + 8) + wrmsr(0x176, CODE + 0x100)
    cpu = run(f"{setup}sysenter\ntimes 0x100-($-$$) nop\nmov rcx, 0x3000\nmov rdx, 0x2000\no64 sysexit", 64)
    assert (cpu.faults[0].linear, cpu.faults[0].cs) == (0x2000, 0x3B)
    assert cpu.engine.state().ss.selector == 0x43
    assert cpu.engine.state().regs[4] == 0x3000


#: In 64-bit mode, where all 64 bits of the source count: what is refused (SDM vol. 2B, MOV to control registers, MOV to
#: debug registers), and beside it what is not.
REFUSED64 = {
    "cr0 high": ("mov rax, cr0\nbts rax, 32\nmov cr0, rax", GP),
    "cr0 without pg": ("mov rax, cr0\nbtr rax, 31\nmov cr0, rax", GP),
    "cr0 with ts": ("mov rax, cr0\nbts rax, 3\nmov cr0, rax", None),
    "cr3 beyond the addresses": ("mov rax, cr3\nbts rax, 40\nmov cr3, rax", GP),
    "cr3 bit 63": ("mov rax, cr3\nbts rax, 63\nmov cr3, rax", GP),
    "cr3": ("mov rax, cr3\nmov cr3, rax", None),
    "cr4 without pae": ("mov rax, cr4\nbtr rax, 5\nmov cr4, rax", GP),
    "dr6 high": ("mov rax, 0x1ffff0ff0\nmov dr6, rax", GP),
    "dr7 high": ("mov rax, 0x8000000000000400\nmov dr7, rax", GP),
    "dr0 high": ("mov rax, 0x8000000000000400\nmov dr0, rax", None),
    "icebp": ("db 0x48, 0xf1", DB),
}


@pytest.mark.parametrize("name", REFUSED64)
def test_64_bit_code_may_not_write_reserved_bits_of_control_and_debug_registers(name: str, loop: str) -> None:
    source, vector = REFUSED64[name]
    if loop == "gate" and name not in ("cr4 without pae", "icebp"):
        pytest.skip("with the C helper (docs/fidelity.md)")
    assert fault(source, 64) == vector


def test_icebp_traps_behind_itself_in_ring_3_too() -> None:
    cpu = run("nop\ndb 0xf1\nhlt", 32, ring=3)
    first = cpu.faults[0]
    assert (first.vector, first.linear, first.code) == (DB, CODE + 2, None)
    assert cpu.engine.state().dr[6] & 0xE00F == 0
