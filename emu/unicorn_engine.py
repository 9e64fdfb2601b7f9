"""UnicornEngine: the Executor that runs any x86 state in this process. The only module that imports unicorn.

How it stays exact: Unicorn's own stop and count can end a run in the middle of an instruction. Here a few lines of
machine code (`emu.unicorn_thunks`) run before every instruction and do the counting, stopping, breakpoints and
interrupts; Unicorn is only ever told to stop from there, where nothing of the instruction has happened.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from ctypes import c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Protocol

import unicorn
from unicorn import unicorn_const, x86_const
from unicorn.unicorn_py3.unicorn import uclib

from emu.engine import CheckLevel, EngineError, Exit, ExitReason, Fault, PortIo, Watch
from emu.unicorn_checks import Checks, code_reader
from emu.unicorn_overlay import (
    CPU_ENV,
    CPU_INTERRUPT_REQUEST,
    CPU_INTERRUPT_VIRQ,
    DOUBLE_FAULT,
    ENV_CR,
    ENV_EFLAGS,
    ENV_HFLAGS,
    ENV_SEGS,
    HF_CS64,
    HF_INHIBIT_IRQ,
    HIDDEN_PAGE,
    NO_EXCEPTION,
    PHYSICAL_END,
    PROBE_NAMES,
    VERSION,
    Overlay,
)
from emu.unicorn_state import read_state, write_state
from emu.unicorn_thunks import (
    EMPTY,
    STOP_ASKED,
    STOP_BREAKPOINT,
    STOP_BUDGET,
    STOP_PAGING,
    BreakpointTable,
    CodePages,
    Control,
    deliver_exception,
    deliver_invalid,
    gate,
    port_access,
)
from emu.unicorn_watch import Watchpoints
from emu.x86.state import CR0_PE, RFLAGS_IF, RFLAGS_TF, CpuState

FAULTS_KEPT = 8
#: Above this many bytes all translations are dropped instead of those of the range.
FLUSH_ALL = 1 << 20
PAGE = 0x1000
VECTOR_DB, VECTOR_UD, VECTOR_PF = 1, 6, 14
#: Exceptions that push an error code in protected mode (SDM vol. 3A, table 6-1).
WITH_CODE = frozenset((8, 10, 11, 12, 13, 14, 17, 21))
DR6_EXECUTED = 0xF  #: B0 to B3
MASK32 = (1 << 32) - 1
#: REP and REPNE, and the string instructions they repeat (SDM vol. 2B, "REP"): INS OUTS MOVS CMPS STOS LODS SCAS.
REPEATS = frozenset((0xF2, 0xF3))
STRING_OPCODES = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))
PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


class MappedRegion(Protocol):
    """A range of physical memory backed by this process's: `host_address` is where its bytes are."""

    @property
    def base(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def kind(self) -> str:
        """`ram`, or `rom`: guest writes are discarded."""

    @property
    def name(self) -> str: ...
    @property
    def host_address(self) -> int: ...


class MmioBus(Protocol):
    """What physical addresses below 1 << 40 reach that no region covers. Sizes are 1, 2, 4 or 8 bytes."""

    def mmio_read(self, address: int, size: int) -> int: ...
    def mmio_write(self, address: int, size: int, value: int) -> None: ...


_IN = ctypes.CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
_OUT = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
_RDTSC = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
_INTR = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
_INVALID = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p)
_READ = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64, ctypes.c_uint, c_void_p)
_WRITE = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, ctypes.c_uint, c_uint64, c_void_p)


class UnicornEngine:
    """An Executor. `regions` must not overlap, be whole pages, and stay mapped until `close`. `mmio` None: holes read
    all ones. `timestamp` is what RDTSC returns. `checks`: see `emu.unicorn_checks`. Raises EngineError when this
    Unicorn is not the one known here."""

    name = "unicorn"

    def __init__(
        self,
        regions: Sequence[MappedRegion],
        io: PortIo,
        mmio: MmioBus | None,
        *,
        timestamp: Callable[[], int],
        checks: CheckLevel = CheckLevel.AUTO,
    ) -> None:
        if unicorn.__version__ != VERSION:
            raise EngineError(
                f"unicorn {unicorn.__version__} is installed and only {VERSION} is known; "
                f"install it with pip install unicorn=={VERSION}"
            )
        self._io, self._mmio, self._timestamp = io, mmio, timestamp
        self._regions = tuple(regions)
        self._keep: list[object] = []  # callbacks and mappings that Unicorn has the addresses of
        self._uc = unicorn.Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
        # Without this every run ends by a page walk to its `until` address, which clobbers CR2.
        self._uc.ctl_exits_enabled(True)
        self._uc.ctl_set_exits([])
        self._handle: int = self._uc._uch.value
        self._ov = Overlay(uclib, self._handle)
        self._call, self._env = self._ov.call, self._ov.env
        self._ov.verify(_register_numbers(), self._uc.msr_write)

        self._page = mmap.mmap(-1, PAGE)
        self._control = Control.from_buffer(self._page)
        self._table = BreakpointTable(self._control)
        self._code = CodePages()
        self._error: BaseException | None = None
        self._base = 0  # instructions retired before this run
        self._budget = 0
        self._live = 0  # 1 while a callback runs inside an instruction that is counted already
        self._running = False
        self._halted = False
        self._shutdown = False
        self._faults: deque[Fault] = deque(maxlen=FAULTS_KEPT)
        self._on_fault: Callable[[Fault], None] | None = None
        self._map()
        self._watch = Watchpoints(self._ov, self._control, self._add_hook, self.state, self._read_physical)
        places = [(region.base, region.base + region.size, region.host_address) for region in self._regions]
        reader = code_reader(self._ov, places, self._watch.read_linear)
        self._checks = Checks(self._ov, self._control, checks, reader, self._failed)
        self._install()
        self.load(CpuState())

    # -- setting up

    def _check(self, code: int, what: str) -> None:
        if code:
            raise EngineError(f"unicorn cannot {what}: {self._call.strerror(code).decode()}")

    def _map(self) -> None:
        everything = unicorn_const.UC_PROT_ALL
        call, handle = self._call, self._handle
        hidden = ctypes.addressof(ctypes.c_uint8.from_buffer(self._page))
        self._check(call.mem_map_ptr(handle, HIDDEN_PAGE, PAGE, everything, hidden), "map its hidden page")
        self._env.vm_vmcb = HIDDEN_PAGE
        self._ram_addresses: list[tuple[int, int, int]] = []  # (base, size, address in Unicorn's RAM numbering)
        for region in self._regions:
            what = f"map {region.name} at {region.base:#x}+{region.size:#x}"
            self._check(call.mem_map_ptr(handle, region.base, region.size, everything, region.host_address), what)
            if region.kind == "rom":
                call.set_readonly(call.find_region(handle, region.base), True)
            ram = call.ram_address(handle, region.host_address)
            self._ram_addresses.append((region.base, region.size, ram))
        read, write = _READ(self._mmio_read), _WRITE(self._mmio_write)
        self._keep += [read, write]
        for first, end in _holes(self._regions):
            self._check(call.mmio_map(handle, first, end - first, read, first, write, first), f"map I/O at {first:#x}")

    def _add_hook(self, kind: int, callback: Any, begin: int = 1, end: int = 0, *extra: int, user_data: int = 0) -> int:
        """A hook for linear or physical [begin, end] (all when end < begin); returns its handle. `callback` is an
        address or a ctypes function that the caller keeps alive."""
        hook = c_size_t()
        address = callback if isinstance(callback, int) else ctypes.cast(callback, c_void_p).value
        code = self._call.hook_add(
            self._handle, ctypes.byref(hook), kind, address, user_data, begin, end, *(c_int(e) for e in extra)
        )
        self._check(code, "add a hook")
        return hook.value

    def _install(self) -> None:
        ov = self._ov

        def add(kind: int, callback: Any, *extra: int) -> None:
            self._keep.append(callback)
            self._add_hook(kind, callback, 1, 0, *extra)

        control = ctypes.addressof(self._control)
        add(
            unicorn_const.UC_HOOK_CODE,
            self._code.place(
                gate(
                    control=control, env=ov.env_address, invalidated=ov.invalidated_address,
                    emu_stop=self._call.emu_stop_address, eflags=ENV_EFLAGS, hflags=ENV_HFLAGS, segs=ENV_SEGS,
                    cr=ENV_CR,
                    cpu=ov.cpu, raise_exception=self._call.address("raise_exception_err_x86_64"),
                    leave=self._call.address("cpu_loop_exit_noexc_x86_64"),
                    request=CPU_INTERRUPT_REQUEST - CPU_ENV,
                )
            ),
        )  # fmt: skip
        # The recording hooks come before the delivering ones: Unicorn calls them in this order.
        add(unicorn_const.UC_HOOK_INTR, _INTR(self._exception))
        add(unicorn_const.UC_HOOK_INSN_INVALID, _INVALID(self._invalid))
        deliver = self._call.do_interrupt_address
        add(
            unicorn_const.UC_HOOK_INTR,
            self._code.place(deliver_exception(control=control, cpu=ov.cpu, do_interrupt=deliver)),
        )
        add(unicorn_const.UC_HOOK_INSN_INVALID, self._code.place(deliver_invalid(cpu=ov.cpu, do_interrupt=deliver)))
        insn = unicorn_const.UC_HOOK_INSN
        for kind, access in (
            (x86_const.UC_X86_INS_IN, _IN(self._in)), (x86_const.UC_X86_INS_OUT, _OUT(self._out)),
        ):  # fmt: skip
            self._keep.append(access)
            thunk = port_access(
                env=ov.env_address, cpu=ov.cpu, permission=self._checks.permission_address,
                access=ctypes.cast(access, c_void_p).value or 0, eflags=ENV_EFLAGS, hflags=ENV_HFLAGS,
                raise_exception=self._call.address("raise_exception_err_x86_64"),
                leave=self._call.address("cpu_loop_exit_noexc_x86_64"),
            )  # fmt: skip
            add(insn, self._code.place(thunk), kind)
        add(insn, _RDTSC(self._rdtsc), x86_const.UC_X86_INS_RDTSC)
        add(insn, _RDTSC(self._rdtsc), x86_const.UC_X86_INS_RDTSCP)

    # -- callbacks; none may let an exception out

    def _failed(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._control.halt_run = 1

    def _in(self, _uc: int, port: int, size: int, _data: int) -> int:
        try:
            return self._io.port_in(port, size)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self._failed(error)
            return MASK32

    def _out(self, _uc: int, port: int, size: int, value: int, _data: int) -> None:
        try:
            self._io.port_out(port, size, value & (1 << 8 * size) - 1)
        except BaseException as error:  # noqa: BLE001
            self._failed(error)

    def _mmio_read(self, _uc: int, offset: int, size: int, base: int | None) -> int:
        try:
            if self._mmio is not None:
                return self._mmio.mmio_read((base or 0) + offset, size)
        except BaseException as error:  # noqa: BLE001
            self._failed(error)
        return (1 << 8 * size) - 1

    def _mmio_write(self, _uc: int, offset: int, size: int, value: int, base: int | None) -> None:
        try:
            if self._mmio is not None:
                self._mmio.mmio_write((base or 0) + offset, size, value & (1 << 8 * size) - 1)
        except BaseException as error:  # noqa: BLE001
            self._failed(error)

    def _rdtsc(self, _uc: int, _data: int) -> int:
        try:
            value = self._timestamp()
            self._env.regs[0], self._env.regs[2] = value & MASK32, value >> 32 & MASK32
        except BaseException as error:  # noqa: BLE001
            self._failed(error)
        return 1

    def _invalid(self, _uc: int, _data: int) -> int:
        # `int 6` comes this way too.
        self._exception(_uc, VECTOR_UD, _data)
        return 0

    def _exception(self, _uc: int, vector: int, _data: int) -> None:
        try:
            self._record(vector)
        except BaseException as error:  # noqa: BLE001
            self._failed(error)

    def _record(self, vector: int) -> None:
        """An exception is about to be delivered. Runs between instructions: stopping here is exact as well."""
        env, control, ov = self._env, self._control, self._ov
        software = env.exception_is_int != 0
        base = 0 if env.hflags & HF_CS64 else env.segs[1].base
        width = (1 << 64) - 1 if env.hflags & HF_CS64 else MASK32
        last = control.last & width
        if software:
            # Unicorn has moved EIP behind the instruction. A fault during the delivery must save its beginning; the
            # delivery itself saves exception_next_eip.
            env.eip = last - base & width
        linear = base + env.eip & width
        counted = 1
        if ov.request.value & CPU_INTERRUPT_VIRQ:
            # The delivery of an external interrupt faulted. It has been acknowledged, so it does not come again.
            ov.request.value &= ~CPU_INTERRUPT_VIRQ
            counted = 0
        elif vector == VECTOR_PF and not software and linear != last:
            # An instruction fetch faulted: the gate has not seen this instruction.
            if control.remaining == 0:
                control.suppress = 1
                control.reason = STOP_BUDGET
                env.old_exception = NO_EXCEPTION
                self._call.emu_stop(self._handle)
                return
            control.remaining -= 1
        elif vector == VECTOR_DB and env.dr[6] & DR6_EXECUTED and not env.eflags & RFLAGS_TF and linear != last:
            # An execution breakpoint of DR0 to DR3, met before the instruction.
            counted = 0
        protected = bool(env.cr[0] & CR0_PE)
        fault = Fault(
            vector=vector,
            code=env.error_code & MASK32 if protected and not software and vector in WITH_CODE else None,
            cs=env.segs[1].selector,
            rip=env.eip,
            linear=linear,
            cr2=env.cr[2],
            software=software,
            retired=self._base + self._budget - control.remaining - counted,
        )
        self._faults.append(fault)
        if self._on_fault is not None:
            self._on_fault(fault)
        if control.stop or control.halt_run:
            # Behind the delivery. The gate would do it before the handler's first instruction, but where the handler
            # cannot even be fetched it is never called.
            control.reason = STOP_ASKED
            self._call.emu_stop(self._handle)

    # -- running

    @property
    def retired(self) -> int:
        """See Executor."""
        return self._base + self._budget - self._control.remaining - self._live

    @property
    def linear_pc(self) -> int:
        """See Executor."""
        env = self._env
        return env.eip if env.hflags & HF_CS64 else env.segs[1].base + env.eip & MASK32

    @property
    def halted(self) -> bool:
        """See Executor."""
        return self._halted

    def set_retired(self, count: int) -> None:
        """See Executor."""
        self._base, self._budget, self._control.remaining = count, 0, 0

    def run(self, budget: int, *, skip_breakpoint: bool = False) -> Exit:
        """See Executor. Besides, a run ends with REQUEST where an external interrupt was delivered, at the handler's
        first instruction, so that its controller can be told at an instant that does not depend on slices."""
        if budget < 1:
            raise ValueError(f"a budget of {budget} instructions: at least 1 is needed")
        if self._running:
            raise EngineError("run() was called inside a callback of a run")
        control = self._control
        self._base, self._budget = self.retired, budget
        control.remaining = budget
        if skip_breakpoint:
            control.skip, control.skip_rsp = self.linear_pc, self._env.regs[4]
        self._running, self._live = True, 1
        try:
            reason, detail = self._loop()
        finally:
            self._running, self._live = False, 0
            control.halt_run = 0
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        executed = budget - control.remaining
        hit = self._watch.take_hit()
        if hit is not None:
            return Exit(ExitReason.WATCHPOINT, executed, hit=hit)
        if reason is ExitReason.BUDGET and control.stop:
            reason = ExitReason.REQUEST
        if reason is ExitReason.REQUEST:
            control.stop = 0
        return Exit(reason, executed, faults=self._chain() if reason is ExitReason.SHUTDOWN else (), detail=detail)

    def _loop(self) -> tuple[ExitReason, str]:
        """Enter Unicorn until there is a reason to return."""
        control, env, call = self._control, self._env, self._call
        while True:
            if self._shutdown:
                return ExitReason.SHUTDOWN, ""
            if control.stop:
                return ExitReason.REQUEST, ""
            if self._halted:
                if not (control.interrupt and self.interruptible()):
                    return ExitReason.HALT, ""
                if not control.remaining:
                    return ExitReason.BUDGET, ""
                self._halted = False
            if self._watch.stale:
                self._watch.translate()
            control.reason = 0
            control.invalidated = self._ov.invalidated.value
            code = call.emu_start(self._handle, env.eip, 0, 0, 0)
            control.suppress = 0
            reason = control.reason
            if env.old_exception == DOUBLE_FAULT:
                self._shutdown = True
            elif code:
                return ExitReason.FAILURE, f"{call.strerror(code).decode()} at {self.linear_pc:#x}"
            elif reason == STOP_BUDGET:
                return ExitReason.BUDGET, ""
            elif reason == STOP_BREAKPOINT:
                if not self._repeating():
                    return ExitReason.BREAKPOINT, ""
                control.skip, control.skip_rsp = self.linear_pc, env.regs[4]
            elif reason == STOP_PAGING:
                self._watch.translate()
            elif self._ov.halted.value:
                self._halted = True
                if control.halt_run:
                    return ExitReason.HALT, ""
            elif reason == STOP_ASKED:
                control.halt_run = 0
                if control.stop or control.taken or self._error is not None or not self._watch.stale or self._watch.hit:
                    return ExitReason.REQUEST, "interrupt delivered" if control.taken else ""
            else:
                return ExitReason.FAILURE, f"unicorn stopped without a reason at {self.linear_pc:#x}"

    def _repeating(self) -> bool:
        """True when the breakpoint just met is on a string instruction that goes on repeating."""
        pc = self.linear_pc
        if self._control.last & (EMPTY if self._env.hflags & HF_CS64 else MASK32) != pc:
            return False
        repeats = False
        for byte in self._watch.read_linear(pc, 15):
            if byte in REPEATS:
                repeats = True
            elif byte not in PREFIXES and not (self._env.hflags & HF_CS64 and 0x40 <= byte < 0x50):
                return repeats and byte in STRING_OPCODES
        return False

    def _chain(self) -> tuple[Fault, ...]:
        """The faults of the instruction that ended in shutdown."""
        if not self._faults:
            return ()
        return tuple(f for f in self._faults if f.retired == self._faults[-1].retired)

    def request_stop(self) -> None:
        """See Executor. A request made while nothing runs ends the next run before its first instruction."""
        self._control.stop = 1

    # -- state

    def state(self) -> CpuState:
        """See Executor."""
        return read_state(self._ov, halted=self._halted)

    def load(self, state: CpuState) -> None:
        """See Executor."""
        write_state(self._ov, state)
        self._halted, self._shutdown = state.halted, False
        self._control.last = self._control.skip = EMPTY
        self._watch.translate()

    # -- interrupts

    def set_interrupt(self, vector: int | None) -> None:
        """See Executor. TPR does not block it: an 8259 reaches the CPU past the local APIC (SDM vol. 3A, 11.8.3)."""
        if vector is None:
            self._control.interrupt = 0
        else:
            self._control.vector = vector
            self._control.interrupt = 1

    def take_interrupt(self) -> int | None:
        """See Executor."""
        if not self._control.taken:
            return None
        self._control.taken = 0
        return self._control.taken_vector

    def interruptible(self) -> bool:
        """See Executor."""
        return bool(self._env.eflags & RFLAGS_IF and not self._env.hflags & HF_INHIBIT_IRQ)

    # -- memory

    def set_a20(self, enabled: bool) -> None:
        """See Executor."""
        mask = -1 if enabled else ~(1 << 20)
        if self._env.a20_mask != mask:
            self._env.a20_mask = mask
            self._call.tlb_flush(self._ov.cpu)
            self._control.leave = 1
            if self._watch.active:
                self._watch.stale = True
                self._control.halt_run = 1

    def memory_changed(self, physical: int, length: int) -> None:
        """See Executor."""
        if length > FLUSH_ALL and not self._running:
            self._call.tb_flush(self._ov.cpu)
            return
        for base, size, ram in self._ram_addresses:
            first, end = max(physical, base), min(physical + length, base + size)
            if first < end:
                self._call.invalidate_range(self._handle, ram + first - base, ram + end - base)
        if self._running:
            self._control.leave = 1

    def _read_physical(self, address: int, length: int) -> bytes | None:
        for region in self._regions:
            if region.base <= address and address + length <= region.base + region.size:
                return ctypes.string_at(region.host_address + address - region.base, length)
        return None

    # -- debugging

    def set_breakpoints(self, linear: Iterable[int]) -> None:
        """See Executor."""
        self._table.replace(linear)

    def set_watchpoints(self, watches: Iterable[Watch]) -> None:
        """See Executor."""
        self._watch.replace(tuple(watches))

    def on_fault(self, callback: Callable[[Fault], None] | None) -> None:
        """See Executor."""
        self._on_fault = callback

    def close(self) -> None:
        """See Executor."""
        self._keep.clear()
        del self._uc


def _register_numbers() -> dict[str, int]:
    return {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in PROBE_NAMES}


def _holes(regions: Sequence[MappedRegion]) -> Iterator[tuple[int, int]]:
    """The physical ranges [first, end) below PHYSICAL_END that no region covers."""
    at = 0
    for region in sorted(regions, key=lambda r: r.base):
        if region.base > at:
            yield at, region.base
        at = region.base + region.size
    if at < PHYSICAL_END:
        yield at, PHYSICAL_END
