"""`python -m bench.bridge [--boots]`: what a request and an event of the bridge cost on each hypervisor, beside a bare
exit for a port access, and what guests that access their timers and interrupt controllers much cost with these in the
hypervisor and in userspace.

All of one table is measured in turns, a round of each after the other, as the pace of a busy host changes meanwhile;
what is printed is the median of rounds.
"""

from __future__ import annotations

import functools
import select
import statistics
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.checkpoints import MEMORY
from emu.firmware.roms import FirmwareError, find_firmware, find_vga_rom, read_rom
from emu.keeper import Keeper
from emu.ledger import Costs
from emu.machine import Machine, MachineConfig, build_machine
from emu.policies import policy_named
from emu.transitions import NativeConfig
from xenbridge.bridge import MachineBridge
from xenbridge.ioreq import Ioreq, Type, read, write
from xenbridge.kvm import abi, parked
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.bridge import KvmBridge
from xenbridge.kvm.requests import FastRequests
from xenbridge.model import make_model
from xenbridge.model_bridge import ModelBridge
from xenbridge.model_devices import ModelDevices

ROUNDS, EACH, WARM = 60, 50, 5
EVENTS = 100
LAPIC = 0xFEE00000
SVR, ICR, EOI, TPR, CURRENT = (LAPIC + at for at in (0xF0, 0x300, 0xB0, 0x80, 0x390))
SELF = 0x40061  #: ICR: to itself, fixed, vector 61h
#: `out DOOR, al; jmp` back: an exit to the process, and nothing else.
BARE = bytes((0xE6, parked.DOOR, 0xEB, 0xFC))
_BARE_AT = 0x1F00
BARE_EXIT, LEAST_EXIT = "kvm: a bare exit", "kvm: a bare exit, by C alone"
_PLACE = struct.Struct("<QQ")

#: What is done before, and what is measured.
Action = tuple[Callable[[], object], Callable[[], object]]
REQUESTS: dict[str, Ioreq] = {
    "PIO read, PIC's IMR (21h)": read(Type.PIO, 0x21, 1),
    "PIO read, PIT's counter (42h)": read(Type.PIO, 0x42, 1),
    "PIO write, PIC's IMR": write(Type.PIO, 0x21, 1, 0xFF),
    "MMIO read, LAPIC timer's count": read(Type.COPY, CURRENT, 4),
    "MMIO write, LAPIC TPR": write(Type.COPY, TPR, 4, 0),
    "MMIO write, LAPIC EOI": write(Type.COPY, EOI, 4, 0),
}


def micros(action: Callable[[], object], count: int = EACH) -> float:
    """Each of `count`, in microseconds."""
    begin = time.perf_counter_ns()
    for _ in range(count):
        action()
    return (time.perf_counter_ns() - begin) / count / 1000


def in_turns(actions: dict[str, Action], rounds: int = ROUNDS) -> dict[str, float]:
    """The median of rounds, us, each round being one of every action. An action is what is done before, and what is
    measured."""
    samples: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, (begin, action) in actions.items():
            begin()
            micros(action, WARM)  # the one before has had the caches
            samples[name].append(micros(action))
    return {name: statistics.median(found) for name, found in samples.items()}


def bare_exits(bridge: KvmBridge) -> dict[str, Action]:
    """One entry and one exit of the same vCPU, for a port that is the process's: what a request is compared with. As a
    run of v2e's takes it, which asks what the exit says, and by one call of the C library, which asks nothing."""
    cpu, page = bridge.cpu, bridge.cpu.page
    bridge.parked_code[_BARE_AT : _BARE_AT + len(BARE)] = BARE
    place = abi.AT_REGS + abi.Regs.rip.offset

    def run() -> None:
        cpu.run()
        cpu.pio()

    def begin() -> None:
        """An access has had the registers meanwhile."""
        _PLACE.pack_into(page, place, parked.BASE + _BARE_AT, 2)
        cpu.mark_dirty(abi.SYNC_REGS)
        cpu.run()

    found: dict[str, Action] = {BARE_EXIT: (begin, run)}
    if isinstance(bridge.made_by, FastRequests):
        found[LEAST_EXIT] = begin, bridge.made_by.bare
    return found


def requests(bridge: MachineBridge) -> dict[str, Action]:
    """Each kind, as bytes, as a machine makes them."""
    bridge.submit(write(Type.COPY, SVR, 4, 0x1FF))
    return {
        name: (lambda: None, functools.partial(bridge.exchange, request.pack())) for name, request in REQUESTS.items()
    }


def event(bridge: MachineBridge) -> float:
    """From a self-IPI to its vector in hand, waited for at the descriptor, us; the median of many."""
    samples = []
    raw = write(Type.COPY, ICR, 4, SELF).pack()
    bridge.listen(True)
    for _ in range(EVENTS):
        begin = time.perf_counter_ns()
        bridge.exchange(raw)
        while bridge.take() is None:
            select.select([bridge.descriptor], [], [], 1)
        samples.append(time.perf_counter_ns() - begin)
        bridge.exchange(write(Type.COPY, EOI, 4, 0).pack())
    bridge.listen(False)
    return statistics.median(samples) / 1000


def called_back(bridge: MachineBridge) -> float:
    """A request while the vCPU waits for an interrupt, us."""
    raw = read(Type.PIO, 0x21, 1).pack()
    bridge.listen(True)
    found = statistics.median(micros(lambda: bridge.exchange(raw), 5) for _ in range(30))
    bridge.listen(False)
    return found


# -- guests

#: Gives DS a limit of 4 GiB.
_UNREAL = """
    lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov ds, bx
    and al, 0xfe
    mov cr0, eax
"""
#: What is done before, and a thousand times.
GUESTS = {
    "PIO: PIT latched and read": ("", "mov al, 0\n out 0x43, al\n in al, 0x40\n in al, 0x40"),
    "PIO: PIC's EOI": ("", "mov al, 0x20\n out 0x20, al"),
    "MMIO: LAPIC timer read": (_UNREAL, "mov eax, [dword 0xfee00390]"),
    "MMIO: LAPIC EOI": (_UNREAL, "mov dword [dword 0xfee000b0], 0"),
}


def rom(setup: str, body: str) -> bytes:
    """Raises FileNotFoundError without nasm."""
    import subprocess
    import tempfile
    from pathlib import Path

    source = f"""
        bits 16
        org 0
        start: cli
        {setup}
        mov cx, 1000
        again:
        {body}
        loop again
        mov al, 0
        out 0xf4, al
        hlt
        gdtr: dw 15
              dd gdt + 0xf0000
        gdt: dq 0
             dq 0x00cf93000000ffff
        times 0xfff0-($-$$) db 0xf4
        jmp 0xf000:start
        times 0x10000-($-$$) db 0
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "guest.asm")
        path.write_text(source)
        subprocess.run(["nasm", "-f", "bin", "-o", path.with_suffix(".bin"), path], check=True)
        return path.with_suffix(".bin").read_bytes()


class Run(NamedTuple):
    """`accesses`: requests of the emulator's, and accesses that the hypervisor answered itself."""

    exits: int
    requests: int
    inside: int
    instructions: int
    cycles: int
    seconds: float


def run(config: MachineConfig, keeper: Callable[[], Keeper], policy: str, limit: int) -> Run:
    """One machine on the model to its end, or `limit` instructions."""
    config.keeper = keeper
    config.native = NativeConfig(make_model(), policy_named(policy, Costs()), Costs())
    machine: Machine = build_machine(config)
    begin = time.perf_counter()
    machine.run(limit)
    seconds = time.perf_counter() - begin
    assert machine.transitions is not None
    ledger, retired = machine.transitions.ledger, machine.executor.retired
    machine.close()
    return Run(sum(ledger.exits.values()), ledger.requests, ledger.inside, retired, ledger.cycles, seconds)


PLACES: tuple[tuple[str, Callable[[], Keeper]], ...] = (("userspace", Keeper), ("hypervisor", ModelDevices))


def guests() -> Iterator[str]:
    """A line for each guest, place of the devices and policy."""
    for name, (setup, body) in GUESTS.items():
        image = rom(setup, body)
        for policy in ("native", "dwell:1000"):
            for place, keeper in PLACES:
                config = MachineConfig(machine="pc", memory=MEMORY, firmware=image, shadow=False)
                yield _line(name, place, policy, run(config, keeper, policy, 1_000_000))


def boots() -> Iterator[str]:
    """SeaBIOS from reset to where it finds nothing to boot."""
    bios, vga = read_rom(find_firmware("seabios", "pc")), read_rom(find_vga_rom("pc"))
    for policy in ("native", "dwell:1000", "learn"):
        for place, keeper in PLACES:
            config = MachineConfig(machine="pc", memory=64 << 20, firmware=bios, vga_rom=vga)
            yield _line("SeaBIOS", place, policy, run(config, keeper, policy, 6_000_000))


def _line(name: str, place: str, policy: str, found: Run) -> str:
    return (
        f"{name:<28}{place:<12}{policy:<12}{found.exits:>8}{found.requests:>10}{found.inside:>8}"
        f"{found.cycles / 1e6:>10.1f}{found.seconds:>8.2f}"
    )


def _micro() -> None:
    bridges: dict[str, MachineBridge] = {"model": ModelBridge()}
    try:
        bridges["kvm"] = KvmBridge()
    except KvmError as error:
        print(f"kvm is not measured: {error}", file=sys.stderr)
    actions: dict[str, Action] = {}
    for name, bridge in bridges.items():
        bridge.borrow()
        actions |= {f"{name}: {what}": action for what, action in requests(bridge).items()}
    kvm = bridges.get("kvm")
    if isinstance(kvm, KvmBridge):
        actions |= bare_exits(kvm)
    found = in_turns(actions)
    bare = [found[name] for name in (BARE_EXIT, LEAST_EXIT) if name in found]
    print(f"{'request':<44}{'us':>8}{'to a bare exit':>16}{'by C alone':>12}")
    for name, us in found.items():
        ratios = [f"{us / each:.2f}" for each in bare if not name.startswith("model")]
        print(f"{name:<44}{us:>8.1f}{''.join(map('{:>14}'.format, ratios))}")
    for name, bridge in bridges.items():
        print(f"{name + ': while the vCPU waits for an interrupt':<44}{called_back(bridge):>8.1f}")
        print(f"{name + ': an event, self-IPI to vector':<44}{event(bridge):>8.1f}")
        bridge.close()


def main(arguments: list[str]) -> int:
    """Returns an exit status."""
    if arguments not in ([], ["--boots"]):
        print("usage: python -m bench.bridge [--boots]", file=sys.stderr)
        return 2
    _micro()
    head = f"{'guest':<28}{'devices in':<12}{'policy':<12}{'exits':>8}{'requests':>10}{'inside':>8}"
    print(f"\n{head}{'Mcycles':>10}{'s':>8}")
    try:
        for line in guests():
            print(line)
        for line in boots() if arguments else ():
            print(line)
    except (FileNotFoundError, FirmwareError) as error:
        print(f"not measured: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
