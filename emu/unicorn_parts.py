"""What an engine is put together from: Unicorn's own engine, the structures laid over it, the loop, and who serves it.

Which of the two loops it gets is decided here; what is executed by it is `emu.unicorn_running`'s.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

from emu.engine import CheckLevel, EngineError, Exit, ExitReason, MemoryRegion, MmioBus, PortIo, SharedDisplay
from emu.typed import TYPE_CHECKING, Final
from emu.unicorn_callbacks import Callbacks
from emu.unicorn_calls import Calls
from emu.unicorn_control import BreakpointTable, Control
from emu.unicorn_events import EventStops
from emu.unicorn_fast import TRANSLATIONS, FastLoop, detacher
from emu.unicorn_faults import Faults
from emu.unicorn_helper import FORCED, HELPER, Helper
from emu.unicorn_layout import CPU_MODELS, HIDDEN_PAGE, VERSION
from emu.unicorn_library import HOOK_INSN_INVALID, HOOK_INTR, REGISTERS, Library
from emu.unicorn_live import LiveState
from emu.unicorn_memory import GuestMemory, code_reader, executed_reader
from emu.unicorn_overlay import Overlay
from emu.unicorn_state import Seldom
from emu.unicorn_system import System
from emu.unicorn_thunks import CodePages, deliver_exception, deliver_invalid
from emu.unicorn_transfers import Transfers
from emu.unicorn_watch import Watchpoints
from emu.x86.cpuid import DEFAULT_MODEL, MODELS, CpuModel
from emu.x86.fidelity import unkept
from emu.x86.state import CpuState
from emu.x86.vectors import denied

if TYPE_CHECKING:
    from emu.unicorn_copy import Copier
    from emu.unicorn_gate import GateLoop
    from emu.unicorn_pack import Packer
    from emu.unicorn_quiet import QuietEngine

#: Opened behind the C helper, which the imports have loaded: that is of use only when it is there before Unicorn.
LIBRARY: Final = Library()
if isinstance(HELPER, Helper):
    HELPER.fit(LIBRARY.path)

#: Bytes of address space for translations; when they are full all are dropped. Unicorn's own choice is 1 GiB. A boot of
#: Linux fills about 60 MiB.
TRANSLATIONS_SIZE: Final = 128 << 20
PAGE: Final = 0x1000


class Stopped(dict[int, Exit]):
    """By how many instructions were executed, the end of a run at a breakpoint: most are few and come again, and
    looking one up takes a tenth of making it."""

    MOST: Final = 1 << 12

    def __missing__(self, executed: int) -> Exit:
        exit = Exit(ExitReason.BREAKPOINT, executed)
        if executed < self.MOST:
            self[executed] = exit
        return exit


class Parts(ABC):
    """An engine that does not run yet. The arguments are those of `emu.unicorn_engine.UnicornEngine`."""

    def __init__(
        self,
        regions: Sequence[MemoryRegion],
        io: PortIo,
        mmio: MmioBus | None,
        *,
        timestamp: Callable[[], int],
        checks: CheckLevel = CheckLevel.AUTO,
        model: CpuModel = MODELS[DEFAULT_MODEL],
        translations: int = TRANSLATIONS,
        display: SharedDisplay | None = None,
        tick: int = 0,
        apic: bool = False,
        portable: bool = False,
    ) -> None:
        if LIBRARY.version != VERSION:
            raise EngineError(
                f"unicorn {LIBRARY.version} is installed and only {VERSION} is known; "
                f"install it with pip install unicorn=={VERSION}"
            )
        self._handle = LIBRARY.new_engine(CPU_MODELS[model.name], TRANSLATIONS_SIZE)
        self._end = LIBRARY.close_with(self, self._handle)
        self._ov = Overlay(LIBRARY.functions, self._handle)
        self._call, self._env = self._ov.call, self._ov.env
        # Views that would be made anew at each look.
        self._regs, self._cs = self._env.regs, self._env.segs[1]
        self._ov.verify(REGISTERS, partial(LIBRARY.write_msr, self._handle), model)
        self._ov.set_features(model)

        self._run_end = memoryview(bytearray(8)).cast("q")  # instructions retired when the run has none left
        self._live = 0  # 1 in a run: a callback is inside an instruction that is counted already
        self._closed = False
        #: the next run may begin otherwise than behind an instruction like any other; see Packing too
        self.odd = True
        self._marking: tuple[int, int, int] | None = None  # of mark_writes, for another map
        self._stopped = Stopped()
        self._halted = False
        self._shutdown = False
        self._smm = self._smm_nmi = False
        self._calls: Calls | None = None
        self._smbase = 0
        self._nmi = False  # an NMI may be pending: one that came while they were blocked is delivered behind IRET
        self._tell_rsm: Callable[[], None] | None = None
        self.interrupt_taken_at = 0
        self._interrupted = False  # the run before ended by an interrupt ahead of the instruction to be resumed from
        self._returning = False  # that instruction has not been executed yet

        self._page = self._hidden_page()
        self._control = Control.from_buffer(self._page)
        self._table = BreakpointTable(self._control)
        self._code = CodePages()
        self._callbacks = Callbacks(io, mmio, self._control)
        self._system = System(
            self._ov, self._callbacks, model, timestamp, lambda: self.retired, lambda at, n: self._memory.read(at, n)
        )  # fmt: skip
        self._seldom = Seldom()
        self._packer: Packer | None = None
        self._quiet: QuietEngine | None = None
        self._copiers: dict[int | None, Copier] = {}  # by the handles of the engines that they copy from
        self._packs_halted = False  # what it packs of `_halted`
        self._live_state = LiveState(
            self._ov, self.state, self._system.efer, lambda: self._halted, lambda: self._smm
        )  # fmt: skip
        self._faults = Faults(
            self._ov, self._control, self._callbacks, lambda: self.retired + self._live, self._read_linear
        )
        first = (HELPER.memory_read, HELPER.memory_write) if isinstance(HELPER, Helper) else None
        self._memory = GuestMemory(self._ov, regions, self._callbacks, first)
        hidden = ctypes.addressof(ctypes.c_uint8.from_buffer(self._page))
        self._memory.map_host(HIDDEN_PAGE, PAGE, hidden, "the hidden page")
        self._env.vm_vmcb = HIDDEN_PAGE
        self._loop = self._choose_loop(translations, tick, portable)
        self._fast = self._loop if isinstance(self._loop, FastLoop) else None
        self._run_end = self._loop.run_end
        self._display = display
        if display is not None and isinstance(self._loop, FastLoop):
            self._loop.serve_display(self._memory, display)
        self.unkept = unkept(helper=isinstance(self._loop, FastLoop))
        self._watch = Watchpoints(
            self._ov, self._control, self._loop, self.state, self.live(), self._memory.read, self._callbacks
        )  # fmt: skip
        self._faults.untrap = self._watch.untrap
        reader = self._reader = code_reader(self._ov, self._memory, self._watch.read_linear)
        if isinstance(HELPER, Helper):
            self._reader = executed_reader(self._ov, HELPER.code_seen, reader)
        self._events = EventStops(self._ov, self._control, self._memory, self.live(), reader)
        self._loop.serve(self._system)
        if self._fast is None:
            # This and what else is imported below is of the gate, and 2 ms of the start of those who have the helper.
            from emu.unicorn_intercepts import Intercepts

            intercepts = Intercepts(
                self._ov, self._control, self._code, self._system, self._memory, reader, HIDDEN_PAGE + PAGE
            )
            self._faults.intercept = intercepts.take
        self._check(checks, model, reader)
        self._transfers = Transfers(
            self._ov, self._control, self._memory, self._write_physical, reader, self._callbacks.failed,
            HELPER.gate_unsure if isinstance(HELPER, Helper) else lambda env, vector: 0,
        )  # fmt: skip
        if self._fast is None:
            self._checks.transfer = self._transfers.far
        self._faults.transfers = self._transfers
        self._faults.resume = self._resume
        self._faults.longest = self._loop.longest
        self._install()
        self._begin(model)

    @abstractmethod
    def _begin(self, model: CpuModel) -> None:
        """All parts are there: see that they work, and let the CPU be as behind a reset."""

    @property
    @abstractmethod
    def retired(self) -> int: ...

    @abstractmethod
    def state(self) -> CpuState: ...

    @abstractmethod
    def live(self) -> CpuState: ...

    @abstractmethod
    def _resume(self) -> bool: ...

    def _hidden_page(self) -> memoryview:
        """The page that has the control structure."""
        near = HELPER.page(self._ov.env_address) if isinstance(HELPER, Helper) else None
        return memoryview(mmap.mmap(-1, PAGE)) if near is None else near

    def _choose_loop(self, translations: int, tick: int, portable: bool) -> FastLoop | GateLoop:
        helper = HELPER
        asked = os.environ.get("V2E_ENGINE", "")
        if asked not in ("", "fast", "gate"):
            raise EngineError(f"V2E_ENGINE is {asked!r} in the environment, which is no run loop: `fast` or `gate`")
        if portable or asked == "gate":
            helper = FORCED
        elif isinstance(helper, Helper):
            try:
                helper.prove(self._ov, self._control, self._page)
            except EngineError as error:
                helper = str(error)
        if isinstance(helper, str):
            self.notice = "" if helper is FORCED else f"the engine runs without its C helper, slower: {helper}"
            repeat = ctypes.cast(self._faults.on_interrupt, ctypes.c_void_p).value or 0
            from emu.unicorn_division import Divisions
            from emu.unicorn_gate import GateLoop

            divisions = Divisions(
                self._ov, self._control, self.state, self._read_linear, self._memory.read, self._callbacks.failed
            )
            return GateLoop(self._ov, self._control, self._code, self._callbacks, self._read_linear, repeat, divisions)
        self.notice = ""
        loop = FastLoop(helper, self._ov, self._control, self._memory.numbered, self._callbacks, translations, tick)
        # Once, and before Unicorn frees what another engine may then be given.
        loop.close = weakref.finalize(self, detacher(helper, self._handle))
        return loop

    def _check(self, level: CheckLevel, model: CpuModel, reader: Callable[[int, int], bytes]) -> None:
        if isinstance(self._loop, FastLoop):
            self._loop.check(segments=level is not CheckLevel.OFF, denied=denied(model))
        else:
            from emu.unicorn_checks import Checks

            self._faults.limits = level is not CheckLevel.OFF
            self._checks = Checks(self._ov, self._control, level, reader, self._callbacks.failed)
            self._loop.run_ended = self._checks.run_ended

    def _read_linear(self, linear: int, length: int) -> bytes:
        """Of code that is being executed, as many bytes as are mapped memory."""
        return self._reader(linear, length)

    def _write_physical(self, address: int, data: bytes) -> None:
        """What the CPU itself stores, while an instruction runs."""
        self._loop.memory_changed(self._memory.write(address, data), running=True)
        self._control.leave |= 1

    def _install(self) -> None:
        ov, code = self._ov, self._code
        delivery = {
            "control": ctypes.addressof(self._control), "cpu": ov.cpu, "do_interrupt": self._call.do_interrupt_address,
            "env": ov.env_address, "refusal": ctypes.addressof(self._transfers.refusal),
            "raise_": self._call.raise_exception_address,
        }  # fmt: skip
        # The recording hooks come before the delivering ones: Unicorn calls them in this order.
        intr, invalid = HOOK_INTR, HOOK_INSN_INVALID
        if isinstance(HELPER, Helper) and self._fast is not None:
            self._calls = Calls(self._fast.engine.value, self._faults.on_exception)
            self._faults.noted, self._faults.forget_noted = self._calls.last, self._calls.forget
            ov.add_hook(intr, HELPER.call_hook_address, user_data=self._calls.address)
        else:
            ov.add_hook(intr, self._faults.on_exception)
        ov.add_hook(invalid, self._faults.on_invalid)
        ov.add_hook(intr, code.place(deliver_exception(**delivery)))
        ov.add_hook(invalid, code.place(deliver_invalid(**delivery)))
        if isinstance(HELPER, Helper):
            if not HELPER.transfers(ov.env_address, self._transfers.callback):
                raise EngineError("too many engines at once")
            self._forget_transfers = weakref.finalize(self, HELPER.transfers, ov.env_address, None)
