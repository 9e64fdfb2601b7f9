"""Finds out what this host's KVM can and cannot do, by running a few instructions of each kind in a VM of its own."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from emu.engine import EngineError
from emu.ledger import Costs
from emu.memory import PhysicalMemory
from emu.subject import MemoryUnavailable
from emu.vcpu import Place
from emu.x86.cpuid import MODELS, CpuModel
from emu.x86.state import CpuState
from emu.x86.vmentry import Rules
from xenbridge.kvm import abi, deliveries
from xenbridge.kvm import probe_programs as programs
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.absent import NOT_NOW, AbsentVcpu
from xenbridge.kvm.backend import Backend, Kind, Way, kind_of
from xenbridge.kvm.calibration import measured_costs
from xenbridge.kvm.cpu import KvmVcpu
from xenbridge.kvm.cpuid import cpuid_entries
from xenbridge.kvm.kick import Kicker
from xenbridge.kvm.probe_programs import CODE, DATA, FAMILIES, MOVED, PORT, RESULT
from xenbridge.kvm.vcpu import INTERRUPTED, Vcpu
from xenbridge.kvm.vm import Vm, slots_of

MODULES: Final = ("kvm_intel", "kvm_amd", "kvm_pvm")
PATIENCE: Final = 50_000_000  #: ns for a program of a few instructions
TSC: Final = 0x10
TSC_AHEAD: Final = 1 << 50  #: counts, some days: more than passes while the probe looks
RBX: Final = 3
#: The mode in which each width of code is tried.
PLAIN: Final = {16: Kind.REAL, 32: Kind.PROTECTED32, 64: Kind.LONG}
#: Modes whose page tables are tried, the most native one first.
PAGED: Final = (Kind.LONG_RING3, Kind.LONG, Kind.PAE_RING3, Kind.PAE, Kind.PAGED32_RING3, Kind.PAGED32)
EXITS_TIMED: Final = 200


class Probe:
    """One look. Raises KvmError where there is no KVM to look at."""

    def __init__(self, model: CpuModel = MODELS["max"]) -> None:
        self._vm = Vm()
        self._ram: PhysicalMemory = programs.memory()
        try:
            self._msr_exits = self._vm.filter_msrs((0xC0000100, 0xC0000101, 0xC0000102))
            self._vm.place(slots_of(self._ram.regions, a20=True))
            self._cpu = Vcpu(self._vm, cpuid_entries(model))
            self._kicker = Kicker(self._cpu.fd, self._cpu.immediate_exit)
        except BaseException:
            self._vm.close()
            raise

    def close(self) -> None:
        """Give the virtual machine back."""
        self._kicker.close()
        self._cpu.close()
        self._vm.close()

    def backend(self) -> Backend:
        """All that is looked at."""
        runs = frozenset(kind for kind in Kind if self._runs(kind) and self._delivers(kind, Way.PLAIN))
        widths = [width for width, kind in PLAIN.items() if kind in runs]
        return Backend(
            modules=tuple(name for name in MODULES if os.path.isdir(f"/sys/module/{name}")),
            runs=runs,
            breaks=frozenset(width for width in widths if self._stops(width, abi.DEBUG_USE_HW_BP)),
            steps=frozenset(width for width in widths if self._stops(width, abi.DEBUG_SINGLESTEP)),
            watches=all(self._watches(width) for width in widths),
            msr_exits=self._msr_exits,
            sees_tables=self._sees_tables(runs),
            sets_tsc=self._sets_tsc(),
            refuses=tuple(
                (family.name, refused)
                for family in FAMILIES
                if (refused := frozenset(w for w in widths if w in family.code and self._refuses(w, family.code[w])))
            ),
            misdelivers=tuple((kind, ways) for kind in Kind if kind in runs and (ways := self._misdelivers(kind))),
            exit_ns=self._exit_ns(),
        )

    # -- running

    def _enter(self, state: CpuState, code: bytes) -> int:
        """Run `code` from `state` until something happens, and say what."""
        at = state.cs.base + CODE if not state.long64 else CODE
        self._ram.write(at, code)
        self._cpu.load(state)
        return self._go()

    def _go(self) -> int:
        begun = time.monotonic_ns()
        self._kicker.begin(PATIENCE, begun)
        try:
            while (reason := self._cpu.run()) == INTERRUPTED:
                self._kicker.drain()
                if time.monotonic_ns() - begun >= PATIENCE:
                    break
        finally:
            self._kicker.end()
        return reason

    def _settle(self) -> None:
        """Nothing of what ran is to be completed later."""
        self._cpu.finish(lambda reason: None)
        if self._cpu.injected:
            self._cpu.withdraw()

    def _said(self, reason: int) -> bool:
        """The program has come to its OUT."""
        return reason == abi.EXIT_IO and self._cpu.pio().port == PORT

    def _runs(self, kind: Kind) -> bool:
        try:
            state = programs.state_of(kind, self._ram)
            base = state.ds.base if not state.long64 else 0
            self._ram.write(base + DATA, bytes(4))
            reason = self._enter(state, programs.STORES[programs.width_of(kind)])
            seen = self._cpu.quick_state()
            # Some KVMs drop what they cannot do, RFLAGS.VM or CR0.PG, without a word.
            right = self._said(reason) and seen.regs[RBX] & 0xFFFFFFFF == RESULT and kind_of(seen) is kind
            return right and self._ram.read(base + DATA, 4) == RESULT.to_bytes(4, "little")
        except KvmError:
            return False
        finally:
            self._settle()

    def _delivers(self, kind: Kind, way: Way) -> bool:
        """An external interrupt reaches its handler, with the frame and the registers that the SDM says."""
        try:
            wanted = deliveries.prepare(kind, way, self._ram)
            self._ram.write(deliveries.code_at(wanted.state), programs.LOOP)
            self._cpu.load(wanted.state)
            self._cpu.finish(lambda reason: None)
            self._cpu.inject(programs.VECTOR)
            reason = self._go()
            return self._said(reason) and deliveries.as_wanted(wanted, self._cpu.quick_state(), self._ram)
        except (KvmError, MemoryUnavailable):
            return False
        finally:
            self._settle()
            deliveries.restore(self._ram)

    def _misdelivers(self, kind: Kind) -> tuple[Way, ...]:
        return tuple(way for way in deliveries.ways_of(kind) if not self._delivers(kind, way))

    def _stops(self, width: int, control: int) -> bool:
        """A breakpoint at the second instruction, or a single step, ends the run there."""
        state = programs.state_of(PLAIN[width], self._ram)
        self._cpu.set_debug(control, (CODE + 1,) if control == abi.DEBUG_USE_HW_BP else ())
        try:
            reason = self._enter(state, programs.NOPS)
            return reason == abi.EXIT_DEBUG and self._cpu.quick_state().linear_pc == CODE + 1
        finally:
            self._settle()
            self._cpu.set_debug(0)

    def _watches(self, width: int) -> bool:
        state = programs.state_of(PLAIN[width], self._ram)
        self._cpu.set_debug(abi.DEBUG_USE_HW_BP, (DATA,), written=True)
        try:
            return self._enter(state, programs.STORES[width]) == abi.EXIT_DEBUG
        finally:
            self._settle()
            self._cpu.set_debug(0)

    def _refuses(self, width: int, code: str) -> bool:
        """KVM does not execute the instruction: it says so, or the program does not come to its end."""
        state = programs.state_of(PLAIN[width], self._ram)
        if width != 16:
            programs.set_gates(self._ram, PLAIN[width])
        self._ram.write(0x5000, (0x7FFF0000).to_bytes(8, "little"))
        try:
            return not self._said(self._enter(state, bytes.fromhex(code) + programs.NOPS))
        finally:
            self._settle()

    def _sees_tables(self, runs: frozenset[Kind]) -> bool:
        """A page that is mapped elsewhere by somebody else is seen there by the guest at once."""
        kind = next((kind for kind in PAGED if kind in runs), None)
        if kind is None:
            return True
        state = programs.state_of(kind, self._ram)
        other = MOVED + 0x1000
        self._ram.write(MOVED, b"\x11")
        self._ram.write(other, b"\x22")
        seen = []
        entry, size = programs.entry_of(kind)
        reason = self._enter(state, programs.LOOKS[programs.width_of(kind)])
        for page in (other, MOVED):
            if not self._said(reason):
                return False
            seen.append(bytes(self._cpu.pio_data(self._cpu.pio())))
            self._ram.write(entry, (page | 7).to_bytes(size, "little"))
            reason = self._go()
        self._settle()
        return seen == [b"\x11", b"\x22"]

    def _sets_tsc(self) -> bool:
        return self._cpu.try_msr(TSC, TSC_AHEAD) and (self._cpu.read_msr(TSC) or 0) >= TSC_AHEAD

    def _exit_ns(self) -> int:
        """What a port access costs, its way to this process and back."""
        state = programs.state_of(Kind.PROTECTED32, self._ram)
        self._enter(state, programs.NOPS[2:] + b"\xeb\xfc")
        begun = time.perf_counter_ns()
        for _ in range(EXITS_TIMED):
            self._cpu.run()
        spent = time.perf_counter_ns() - begun
        self._settle()
        return spent // EXITS_TIMED


def make_kvm(notice: Callable[[str], None] = lambda text: None) -> Callable[[Place], KvmVcpu | AbsentVcpu]:
    """What makes the vCPU of `--hypervisor kvm`, and raises EngineError where there is none on this host. `notice` is
    told when KVM vanishes in the middle of a run, and when it may not be used or is busy: then all is emulated."""
    return partial(_make, notice)


def _make(notice: Callable[[str], None], place: Place) -> KvmVcpu | AbsentVcpu:
    try:
        return _present(notice, place)
    except KvmError as error:
        if error.number not in NOT_NOW:
            raise EngineError(f"--hypervisor kvm: {error}") from error
        notice(f"--hypervisor kvm: {error}; this run goes on in the emulator")
        return AbsentVcpu(place, str(error))


def _present(notice: Callable[[str], None], place: Place) -> KvmVcpu:
    """Raises KvmError, and EngineError where this host's KVM is of no use."""
    backend = host_backend(place.model)
    if not backend.runs:
        raise EngineError(
            f"--hypervisor kvm: this host's KVM ({backend.name}) runs no mode that was tried: use --hypervisor model"
        )
    try:
        return KvmVcpu(place, backend, notice)
    except EngineError as error:
        if isinstance(error.__cause__, KvmError):  # it was there when it was probed
            raise error.__cause__ from None
        raise


def probe(model: CpuModel = MODELS["max"]) -> Backend:
    """What this host's KVM can do. Raises KvmError where there is none."""
    look = Probe(model)
    try:
        return look.backend()
    finally:
        look.close()


@functools.cache
def host_backend(model: CpuModel) -> Backend:
    """As `probe`, once. Raises KvmError where there is no KVM."""
    return probe(model)


def host_rules() -> Rules:
    """The rule set `kvm`: this host's KVM as probed, once. Raises KvmError where there is none."""
    return host_backend(MODELS["max"]).rules()


@functools.cache
def host_costs(model: CpuModel) -> Costs | None:
    """What native execution costs by this host's KVM, measured once; None where it cannot be measured. Raises KvmError
    or EngineError where there is none."""
    return measured_costs(host_backend(model), model)
