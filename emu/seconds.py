"""The second CPUs that lockstep knows: emulators in other settings than the machine's own, and the hypervisor's CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from emu.clock import NS_PER_INSTRUCTION
from emu.configuration import MachineConfig, cpu_model
from emu.engine import Access, CheckLevel, EngineError, Executor, MmioBus, PortIo, Watch
from emu.memory import PhysicalMemory
from emu.pages import PAGE
from emu.record import dataclass
from emu.replica import MakeExecutor, Replica
from emu.unicorn_engine import UnicornEngine
from emu.x86 import paging
from emu.x86.classes import split
from emu.x86.core import RFLAGS_RF
from emu.x86.disasm import MAX_INSTRUCTION, is_rep_string
from emu.x86.modes import code_bits
from emu.x86.msrs import TSC_ADJUST
from emu.x86.state import CpuState

if TYPE_CHECKING:
    from emu.transitions import Transitions

PHYSICAL_BITS = 40
#: First bytes of instructions of which a step by TF makes something else (SDM vol. 3B, 18.3.1.4): HLT; POPF and IRET,
#: which load TF; MOV and POP to SS, behind which no trap comes; INT n, INT3, INTO and INT1, which clear TF.
UNSTEPPED = frozenset((0xF4, 0x9D, 0xCF, 0x17, 0xCC, 0xCD, 0xCE, 0xF1))
MOV_TO_SEGMENT, SS = 0x8E, 2
#: An address of execution and of data that no guest uses: what is set there only makes the second CPU work otherwise.
NOWHERE = 0xFFFF_8000_DEAD_B000


@dataclass(frozen=True, slots=True)
class Second:
    """The second CPU: what makes it, and how many instructions it is asked for at a time (None: as many as come)."""

    name: str
    make: Callable[[MachineConfig], MakeExecutor]
    slice: int | None = None


def _emulator(*, checks: CheckLevel, portable: bool, hooked: bool) -> Callable[[MachineConfig], MakeExecutor]:
    def prepared(config: MachineConfig) -> MakeExecutor:
        def make(replica: Replica) -> Executor:
            engine = UnicornEngine(
                replica.memory.regions, replica, replica, timestamp=replica.timestamp, checks=checks,
                model=cpu_model(config), portable=portable,
            )  # fmt: skip
            if hooked:
                engine.set_breakpoints((NOWHERE,))
                engine.set_watchpoints((Watch(NOWHERE, 8, Access.BOTH),))
            return engine

        return make

    return prepared


def _emulated(transitions: Transitions, memory: PhysicalMemory) -> bool:
    """True where the emulator has run an instruction of which a single step of a hypervisor's CPU makes something else:
    any number of iterations of a repeated string instruction, or one of UNSTEPPED."""
    state = transitions.live()
    code, bits = code_here(memory, state), code_bits(state)
    op = split(code, bits)[1]
    to_ss = op[:1] == bytes((MOV_TO_SEGMENT,)) and len(op) > 1 and op[1] >> 3 & 7 == SS
    if not op or not (op[0] in UNSTEPPED or to_ss or is_rep_string(code, bits)):
        return False
    transitions.emulate(1)
    transitions.run(1)
    return True


def code_here(memory: PhysicalMemory, state: CpuState) -> bytes:
    """The bytes of the next instruction, as far as they can be read."""
    code = bytearray()
    while len(code) < MAX_INSTRUCTION:
        linear = state.linear_pc + len(code)
        physical = paging.translate(state, memory.try_read, linear, PHYSICAL_BITS)
        count = min(PAGE - linear % PAGE, MAX_INSTRUCTION - len(code))
        if physical is None or not (count := memory.available(physical, count)):
            break
        code += memory.read(physical, count)
    return bytes(code)


def _native(config: MachineConfig) -> MakeExecutor:
    """What `config.native` asks for: emulator and vCPU together, as the machine would have them."""
    from emu.transitions import Transitions
    from emu.vcpu import Place

    native, model = config.native, cpu_model(config)
    assert native is not None

    def make(replica: Replica) -> Executor:
        def emulator(io: PortIo, mmio: MmioBus) -> Executor:
            return UnicornEngine(
                replica.memory.regions, io, mmio, timestamp=replica.timestamp, checks=config.checks, model=model
            )

        place = Place(
            replica.memory.regions, replica, replica, replica.timestamp, NS_PER_INSTRUCTION, config.checks, model
        )
        transitions = Transitions(emulator, place, native, replica.memory.unmarked)
        vcpu = transitions.vcpu
        replica.name = f"the emulator in place of {vcpu.name}" if vcpu.unable() else vcpu.name
        if not transitions.vcpu.counts:
            replica.slice = 1  # single steps are counted, and leave RF set
            replica.hidden = RFLAGS_RF
            replica.hidden_msrs = frozenset((TSC_ADJUST,))  # its time stamp is the host's
            replica.whole = partial(_emulated, transitions, replica.memory)
            # A step that meets an interrupt ends behind the handler's first instruction, or a halted CPU's never.
            replica.delivers = partial(transitions.emulate, 1)
        return transitions

    return make


#: Emulators in other settings than the machine's own, by name.
EMULATORS = {
    second.name: second
    for second in (
        Second("emulator", _emulator(checks=CheckLevel.FULL, portable=False, hooked=False), 10_007),
        Second("hooked", _emulator(checks=CheckLevel.FULL, portable=False, hooked=True), 1_009),
        Second("portable", _emulator(checks=CheckLevel.AUTO, portable=True, hooked=False)),
    )
}


def second_named(config: MachineConfig, name: str | None = None) -> Second:
    """The second CPU of that name; None: what `config.native` asks for, or the emulator in other settings. Raises
    EngineError where there is none."""
    if name is None and config.native is not None:
        return Second("native", _native)
    name = name or "emulator"
    if name not in EMULATORS:
        raise EngineError(f"no second CPU is called {name!r}: use one of {', '.join(EMULATORS)}")
    return EMULATORS[name]
