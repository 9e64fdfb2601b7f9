"""The Vcpu protocol: a hypervisor's CPU as the machine sees it. It runs natively until something makes it exit.

An exit is called what VT-x calls it (SDM vol. 3C, appendix C, "VMX basic exit reasons"). Port and memory accesses are
completed by the machine's devices, as a hypervisor's user space does it: such an exit is behind its instruction. What
the CPU itself would have to be asked about (HLT, CPUID, MSRs, control registers) stops before the instruction, which is
then executed by `complete`, or by the emulator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from emu.engine import CheckLevel, Cpu, Exit, MemoryRegion, MmioBus, PortIo
from emu.named import Enum, NamedTuple
from emu.packed import Packing
from emu.typed import Protocol, runtime_checkable
from emu.x86.cpuid import CpuModel
from emu.x86.modes import Mode
from emu.x86.state import CpuState
from emu.x86.vmentry import Broken, Rules

PAGE = 0x1000


class ExitCause(Enum):
    """Why a vCPU left native execution. The value is the word for it that people see."""

    PIO = "pio"  #: I/O instruction
    MMIO = "mmio"  #: an access to memory that is a device's
    HLT = "hlt"
    CPUID = "cpuid"
    MSR = "msr"  #: RDMSR, WRMSR
    CR = "cr"  #: control-register accesses
    DR = "dr"  #: MOV DR
    CACHE = "cache"  #: INVD, WBINVD, INVLPG
    RDPMC = "rdpmc"
    DESCRIPTOR = "descriptor"  #: LGDT, LIDT in real mode, which runs as virtual 8086
    SOFTWARE_INTERRUPT = "int"  #: INT n in real mode
    EXCEPTION = "exception"  #: any other in real mode, where the hypervisor has to deliver it
    INTERRUPT = "interrupt"  #: an external interrupt was delivered
    TASK_SWITCH = "task switch"
    REFUSED = "refused"  #: an instruction that the backend cannot execute
    ENTRY_FAILED = "entry failed"
    FORBIDDEN = "forbidden"  #: a place or mode that `forbid` names
    # These are no exits of the guest's making: the run has ended.
    STOPPED = "stopped"  #: `VmExit.stop` says why

    # Exits are counted by it, and sites found: an enumeration's own hash is a function of Python.
    __hash__ = object.__hash__


class Site(NamedTuple):
    """Where exits come from, for those that learn: `pc` is the linear address of the instruction, `where` the port, the
    MSR, or the page of the physical address."""

    cause: ExitCause
    pc: int
    where: int
    mode: Mode

    def __str__(self) -> str:
        at = f" {self.where:#x}" if self.cause in (ExitCause.PIO, ExitCause.MMIO, ExitCause.MSR) else ""
        return f"{self.cause.value}{at} at {self.pc:#x} ({self.mode.label})"


class VmExit(NamedTuple):
    """One exit. `address` is the port, the physical address, the MSR or the vector, `pc` the linear address of the
    instruction. `before`: the instruction has not been executed. `done`: the hypervisor has executed it, it is counted
    (`Resident`), and the state behind it cannot be entered. `elapsed` is the guest's time in ns that passed, of a
    vCPU that does not count. `stop`: the run is to end besides, as an Executor's would have; with STOPPED that is
    all. `barred`: why the CPU cannot be native there, whatever is decided; only of accesses that found it emulated."""

    cause: ExitCause
    pc: int
    mode: Mode
    address: int = 0
    write: bool = False
    before: bool = False
    detail: str = ""
    elapsed: int = 0
    stop: Exit | None = None
    done: bool = False
    barred: str = ""

    @property
    def site(self) -> Site:
        """What a policy learns by."""
        where = self.address // PAGE * PAGE if self.cause is ExitCause.MMIO else self.address
        return Site(self.cause, self.pc, where, self.mode)


class Place(NamedTuple):
    """What a vCPU is made for: the guest's memory, its devices, its time stamp, its CPU model."""

    regions: Sequence[MemoryRegion]
    io: PortIo
    mmio: MmioBus
    timestamp: Callable[[], int]
    tick: int
    checks: CheckLevel
    model: CpuModel
    #: of an access, by its cause and its port or physical address: whether the device is the hypervisor's own
    kept: Callable[[ExitCause, int], bool] | None = None
    #: told of each such access
    inside: Callable[[], None] = lambda: None


class Vcpu(Cpu, Protocol):
    """A CPU that runs natively. As a Cpu it is used by one thread, except for `request_stop`."""

    name: str  #: of the hypervisor
    title: str  #: the same for people
    rules: Rules  #: which states it can enter
    #: `retired` counts the instructions that it executes, exactly. Else it stands still, and exits tell the time.
    counts: bool
    #: It keeps translations of code. Else it executes from memory itself, and `take_written` has all that it writes.
    translates: bool
    #: Real mode runs as virtual 8086 mode: software interrupts and faults are exits there.
    real_is_v86: bool

    #: InstructionClass bits of those that are exits, and access no device
    exiting: int

    def exits_at(self, code: bytes, state: CpuState) -> tuple[ExitCause, int, bool] | None:
        """What the instruction of these classes that begins `code` would be an exit for, in a state that may be in
        place (`Cpu.live`): with its address as in VmExit, and whether it writes. None: it is none."""

    def refused(self, state: CpuState) -> tuple[Broken, ...]:
        """The rules that `state` breaks; empty: it can be entered."""

    def enterable(self, state: CpuState) -> bool:
        """`refused` would be empty; cheaper, and of a state in place (`Cpu.live`) too."""

    def unable(self) -> str:
        """Which of the stops set it cannot keep, so that it must not run natively; empty: it keeps all."""

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Collection[Mode]) -> None:
        """From now on exit with FORBIDDEN before each instruction at a linear address in one of the (first, last)
        ranges, or in one of the modes. Who cannot exit there only keeps from being entered there."""

    def enter(self, budget: int, deadline: int | None, *, skip_breakpoint: bool) -> VmExit:
        """Run natively until an exit, at most `budget` instructions where it counts, and else up to the virtual time
        `deadline` (ns). A state that is refused is an exit ENTRY_FAILED, with its reasons."""

    def complete(self, exit: VmExit) -> Exit:
        """Execute the instruction of an exit that is `before` it, as the hypervisor does."""

    def trace_pages(self, host_address: int, pages: int) -> None:
        """The `pages` pages of 4 KiB from `host_address` in this process are the guest's memory: note those written."""

    def take_written(self) -> Iterable[int] | None:
        """Numbers of the pages written since the last call; None: it cannot tell."""


@runtime_checkable
class Resident(Protocol):
    """A vCPU that need not return from each exit where the hypervisor handles all of them by itself."""

    def remain(self, on: bool, ports: int | None) -> None:
        """From now on exits behind which it goes on natively do not end its runs, or do again. Meanwhile reads of ports
        may be answered ahead, and by the structure at address `ports` of this process (`Cpu.serve_ports`)."""

    def take_exits(self) -> Mapping[ExitCause, int]:
        """How many exits of each cause did not end a run since the last call."""

    def hold_input(
        self, port: int, value: int, until: int | None, *, answered: bool = True, kept: bool = False
    ) -> None:
        """See Executor. Of what is `kept`, which is no exit, also while exits end its runs."""

    def take_kept(self) -> int:
        """See Executor."""


@runtime_checkable
class Straying(Protocol):
    """A vCPU that may come natively to what its hypervisor runs wrongly, and finds out afterwards."""

    @property
    def strayed(self) -> str:
        """How often the guest did, and when last, behind "strayed:"; empty: never."""


@runtime_checkable
class Sharing(Protocol):
    """A vCPU whose state an emulator's packing can take, and give, without a copy of it in Python."""

    def share(self, packing: Packing, rest: Callable[[], CpuState]) -> bool:
        """From now on moves may be made by `take_over` and `hand_over`, from and to the emulator that `packing` is of.
        `rest` gives the emulator's state while that does not run. False: they may not."""

    def take_over(self, retired: int) -> bool:
        """Have the emulator pack its state by `Packing.packer`, and go on from there, with `retired` instructions
        retired. The state has been found enterable. False, with nothing done: there is more to it now than is
        packed."""

    def forget(self) -> None:
        """The guest's next state is none that it has come to, as behind RESET: what is not packed is not as the vCPU
        left it. Not for a state that is taken back behind a look ahead."""

    def hand_over(self) -> int | None:
        """Pack the state, and tell the emulator what was written to memory: the PART_* that have changed since
        `take_over`. None, with nothing done: there is more to it now; use `state` and `take_written`."""


@runtime_checkable
class Lending(Protocol):
    """A vCPU whose hypervisor keeps the interrupt controllers by itself, and is to know who has the guest."""

    def lend(self) -> None:
        """The emulator has the guest from now on, with the state that was taken. `load` and `enter` are the end of
        it."""


#: Makes the vCPU of a hypervisor. Raises EngineError with a sentence where it cannot be had.
MakeVcpu = Callable[[Place], Vcpu]
