"""What the probe asks of interrupts is what the emulator does with them, and what a KVM does wrong keeps the kind
emulated."""

from __future__ import annotations

import pytest

from asm import assemble
from bare_cpu import BareCpu
from emu.debugger import Debugger
from emu.firmware.roms import builtin_bios
from emu.ledger import Costs
from emu.machine import MachineConfig, build_machine
from emu.media import Disk
from emu.policies import policy_named
from emu.record import replace
from emu.stops import StopKind
from emu.transitions import NativeConfig
from emu.unicorn_engine import UnicornEngine
from emu.vcpu import ExitCause
from emu.x86.cpuid import MODELS
from emu.x86.modes import Mode
from emu.x86.state import RFLAGS_IF
from xenbridge.kvm import deliveries
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.backend import EVERYWHERE, Backend, Kind, Way
from xenbridge.kvm.cpu import KvmVcpu
from xenbridge.kvm.probe import Probe, make_kvm

ALL = Backend(("kvm_any",), frozenset(Kind), EVERYWHERE, EVERYWHERE, True, True, True, True, 1000, ())
TRIED = [(kind, way) for kind in Kind for way in deliveries.ways_of(kind)]


def delivered(kind: Kind, way: Way) -> tuple[deliveries.Delivery, BareCpu]:
    """By the emulator, to the handler's HLT."""
    memory = programs.memory()
    cpu = BareCpu(memory)
    cpu.engine = UnicornEngine(memory.regions, cpu, cpu, timestamp=lambda: 0, model=MODELS["max"])
    memory.on_write.append(cpu.engine.memory_changed)
    wanted = deliveries.prepare(kind, way, memory)
    memory.write(deliveries.code_at(wanted.state), programs.LOOP)
    cpu.engine.load(wanted.state)
    cpu.engine.set_interrupt(programs.VECTOR)
    cpu.run(3)
    return wanted, cpu


@pytest.mark.parametrize(("kind", "way"), TRIED, ids=[f"{kind.name}-{way.name}" for kind, way in TRIED])
def test_an_interrupt_arrives_in_the_emulator_as_the_probe_wants_it(kind: Kind, way: Way) -> None:
    wanted, cpu = delivered(kind, way)
    assert [(port, size) for _, port, size, _ in cpu.outs] == [(programs.PORT, 1)]
    seen = cpu.engine.state()
    assert cpu.memory.read(wanted.at, len(wanted.frame)).hex(" ") == wanted.frame.hex(" ")
    assert deliveries.as_wanted(wanted, seen, cpu.memory)


@pytest.mark.parametrize(("kind", "way"), [(Kind.RING3, Way.PLAIN), (Kind.REAL, Way.HIGH_ESP), (Kind.V86, Way.BASED)])
def test_what_is_wrong_with_an_arrival_is_seen(kind: Kind, way: Way) -> None:
    wanted, cpu = delivered(kind, way)
    seen = cpu.engine.state()
    for selector in (seen.cs, seen.ss):
        selector.selector ^= 8
        assert not deliveries.as_wanted(wanted, seen, cpu.memory)
        selector.selector ^= 8
    for change in (1 << 16, 2):
        seen.regs[4] ^= change
        assert not deliveries.as_wanted(wanted, seen, cpu.memory)
        seen.regs[4] ^= change
    seen.rflags ^= RFLAGS_IF
    assert not deliveries.as_wanted(wanted, seen, cpu.memory)
    seen.rflags ^= RFLAGS_IF
    assert deliveries.as_wanted(wanted, seen, cpu.memory)
    for at in range(wanted.at, wanted.at + len(wanted.frame)):
        (byte,) = cpu.memory.read(at, 1)
        cpu.memory.write(at, bytes((byte ^ 1,)))
        assert not deliveries.as_wanted(wanted, seen, cpu.memory)
        cpu.memory.write(at, bytes((byte,)))


def test_the_tables_are_as_before_behind_a_try() -> None:
    for kind, way in TRIED:
        memory, fresh = programs.memory(), programs.memory()
        deliveries.prepare(kind, way, memory)
        deliveries.restore(memory)
        for at, length in ((programs.GDT, 8 * len(programs.DESCRIPTORS)), (programs.IDT, 0x400)):
            assert memory.read(at, length) == fresh.read(at, length), (kind, way)


def test_a_kind_in_which_interrupts_can_arrive_wrongly_is_refused_with_the_ways() -> None:
    backend = replace(ALL, misdelivers=((Kind.RING3, (Way.GATE16, Way.BASED)),))
    (broken,) = backend.check(programs.state_of(Kind.RING3, programs.memory()))
    assert broken.text == (
        "in 32-bit protected mode, ring 3 kvm_any delivers interrupts wrongly through a 16-bit gate, to a handler's"
        " stack with a base"
    )
    assert not list(backend.check(programs.state_of(Kind.PROTECTED32, programs.memory())))
    assert not backend.runs_all and ALL.runs_all
    assert ("kvm interrupts", None) in [(name, ok) for name, ok, _ in backend.findings()]


def test_what_is_lost_of_esp_in_real_mode_does_not_keep_real_mode_emulated() -> None:
    backend = replace(ALL, misdelivers=((Kind.REAL, (Way.HIGH_ESP,)),))
    assert not list(backend.check(programs.state_of(Kind.REAL, programs.memory())))
    assert backend.loses_esp and backend.runs_all and not ALL.loses_esp


class Deaf(Probe):
    """Finds a KVM in which nothing arrives in a kind."""

    deaf = Kind.REAL

    def _delivers(self, kind: Kind, way: Way) -> bool:
        return kind is not self.deaf and super()._delivers(kind, way)


def test_a_kind_in_which_no_interrupt_arrives_does_not_run(backend: Backend) -> None:
    for kind in backend.runs:
        look = Deaf()
        look.deaf = kind
        try:
            assert look.backend().runs == backend.runs - {kind}
        finally:
            look.close()


#: A guest whose timer interrupts ring 3 a hundred times. Its handler, in code of the gate's width, looks for CS and SS
#: in the frame, and ends it with code 1 where they are not there.
RING3 = """
    org 0x7c00
    bits 16
    cli
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov ax, 1193
    out 0x40, al
    mov al, ah
    out 0x40, al
    mov dword [0x6004], 0x8000
    mov dword [0x6008], STACK
    mov dword [0x6064], 0x680000
    mov word [0x5100], handler
    mov word [0x5102], HANDLER
    mov dword [0x5104], GATE
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 8:protected
    bits 32
protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ax, 0x28
    ltr ax
    push dword 0x23
    push dword 0x9000
    push dword 0x3202
    push dword 0x1b
    push dword user
    iret
user:
    mov ax, 0x23
    mov ds, ax
wait_here:
    inc dword [0xa000]
    jmp wait_here
    bits WIDTH
%if WIDTH == 32
    %define frame(part) ss:esp + 4 * (part + 2)
%else
    %define frame(part) bp + 2 * (part + 2)
%endif
handler:
%if WIDTH == 32
    push eax
%else
    push ax
%endif
    push ds
    mov ax, 0x10
    mov ds, ax
%if WIDTH == 16
    mov bp, sp
%endif
    cmp word [frame(1)], 0x1b
    jne bad
    cmp word [frame(4)], 0x23
    jne bad
    inc byte [ticks]
    cmp byte [ticks], 100
    jae good
    mov al, 0x20
    out 0x20, al
    pop ds
%if WIDTH == 32
    pop eax
%else
    pop ax
%endif
    iret
bad:
    mov al, 1
    out 0xf4, al
good:
    mov al, 0
    out 0xf4, al
ticks: db 0
gdt_pointer:
    dw 0x3f
    dd gdt
idt_pointer:
    dw 0x7ff
    dd 0x5000
    align 8
gdt:
    dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff2000000ffff, 0x0000890060000067
    dq 0x00cf92010000ffff, 0x00009a000000ffff
    times 510-($-$$) db 0
    dw 0xaa55
"""
GATES = {  # the selectors of SS0 and of the handler, the gate's rights, and its width
    "flat": (0x10, 8, 0xEE00, 32),
    "based stack": (0x30, 8, 0xEE00, 32),
    "16-bit gate": (0x10, 0x38, 0xE600, 16),
}
#: Waits for five ticks with a stack pointer above 16 bits, and ends with code 0 if these are left of it.
HIGH_ESP = """
    org 0x7c00
    bits 16
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov esp, 0x12347000
    sti
    mov bl, [0x46c]
    add bl, 5
later:
    cmp bl, [0x46c]
    jne later
    shr esp, 16
    cmp sp, 0x1234
    setne al
    out 0xf4, al
    times 510-($-$$) db 0
    dw 0xaa55
"""


def debugger(source: str, policy: str) -> Debugger:
    """Of a boot sector under kvm."""
    disk = Disk.from_bytes(assemble(source).ljust(1 << 20, b"\0"))
    config = MachineConfig(firmware=builtin_bios(), bios=True, memory=16 << 20, disks=(disk,))
    config.native = NativeConfig(make_kvm(), policy_named(policy, Costs()), Costs())
    made = Debugger(build_machine(config))
    made.set_limit(50_000_000)
    made.machine.native_limit = 60_000_000_000
    return made


def ends(made: Debugger) -> None:
    """It ends as the guest ends that has found nothing wrong."""
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text


@pytest.mark.parametrize("gate", GATES)
def test_interrupts_of_ring_3_find_their_handler_whatever_its_gate_and_stack(backend: Backend, gate: str) -> None:
    names = ("STACK", "HANDLER", "GATE", "WIDTH")
    values = "".join(f"%define {name} {value}\n" for name, value in zip(names, GATES[gate], strict=True))
    made = debugger(values + RING3, "native")
    transitions = made.machine.transitions
    assert transitions is not None
    transitions.forbid((), (Mode.REAL, Mode.BIG_REAL))
    ends(made)
    vcpu = transitions.vcpu
    if backend.unsafe(Kind.RING3) and backend.unsafe(Kind.PROTECTED32):
        assert isinstance(vcpu, KvmVcpu) and vcpu.strayed == "" and not transitions.ledger.exits[ExitCause.PIO]
    made.machine.close()


def test_an_interrupt_in_real_mode_leaves_all_of_esp(backend: Backend) -> None:
    if Kind.REAL not in backend.runs:
        pytest.skip(f"{backend.name} does not run real mode")
    made = debugger(HIGH_ESP, "native")
    ends(made)
    transitions = made.machine.transitions
    assert transitions is not None and any(move.native for move in transitions.history)
    told = any("an interrupt in real mode with ESP" in str(move.reason) for move in transitions.history)
    assert told is backend.loses_esp
    made.machine.close()
