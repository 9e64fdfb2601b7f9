"""What a person does to a machine besides running it: keys, mouse, ports, MSRs; and who could execute it.

Every method runs on the thread that owns the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from emu.inspector import DebuggerError, Inspector
from emu.journal import Event
from emu.machine import Machine, MachineError
from emu.record import replace
from emu.steering import Steering
from emu.stops import Stop
from emu.typed import TYPE_CHECKING
from emu.views import EntryView, FingerprintView, RegisterView, SegmentView, StuckView
from emu.x86 import disasm
from emu.x86.modes import code_bits
from emu.x86.state import CpuState

if TYPE_CHECKING:
    from emu.packed import Flat
    from emu.x86.vmentry import Rules


class Panel(Inspector):
    """An Inspector of a machine, with its controls."""

    last_stop: Stop  #: why the guest stands still

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.machine = machine
        self.steering = Steering(machine)

    def _stood(self) -> CpuState:
        self.machine.service()
        return self.machine.executor.live()

    def flat_cpu(self) -> Flat | None:
        """See Inspector."""
        packing = self.machine.executor.packing()
        if packing is None:
            return None
        self.cpu_in_place()  # the devices are at this instant
        return packing.look()

    def live_cpu(self) -> CpuState:
        """See Inspector."""
        return self.machine.executor.live()

    # -- what every session can be asked, also one without a machine (emu.onlooker)

    @property
    def retired(self) -> int | None:
        """Instructions retired since reset; None where nobody counts."""
        return self.machine.executor.retired

    @property
    def virtual_ns(self) -> int | None:
        """Virtual time; None where there is none."""
        return self.machine.clock.now

    def events(self) -> tuple[Event, ...]:
        """The journal, oldest first."""
        return tuple(self.machine.journal)

    def msr_names(self) -> Mapping[str, int]:
        """The numbers of the model-specific registers that can be asked for, by their names in lower case."""
        return self.machine.executor.msr_names()

    def request_stop(self) -> None:
        """From any thread: a running guest stops before its next instruction."""
        self.machine.request_stop()

    # -- the machine's controls

    def fingerprint(self) -> FingerprintView:
        return self.machine.fingerprint()

    def type_text(self, text: str) -> None:
        """Type on the guest's keyboard (US layout)."""
        self._feed("text", text)

    def press(self, keys: str) -> None:
        """Strokes separated by blanks, keys of one stroke joined by `+`: "ctrl+alt+delete enter"."""
        self._feed("keys", keys)

    def move_mouse(self, action: str) -> None:
        """`move DX DY`, `wheel N`, or `down`, `up`, `click` with a button's name."""
        self._feed("mouse", action)

    def send_serial(self, text: str) -> None:
        """To the guest's COM1."""
        self._feed("serial", text)

    def _feed(self, kind: str, data: str) -> None:
        try:
            self.machine.feed(kind, data)
        except MachineError as error:
            raise DebuggerError(str(error)) from None

    def msrs(self) -> tuple[RegisterView, ...]:
        """The model-specific registers that the CPU model has, with their numbers."""
        executor = self.machine.executor
        values = ((name, number, executor.read_msr(number)) for name, number in self.msr_names().items())
        return tuple(
            RegisterView(name, 64, value, f"{number:x}h") for name, number, value in values if value is not None
        )

    def msr(self, number: int) -> int:
        """What RDMSR would answer in ring 0. Raises DebuggerError where the CPU would fault."""
        value = self.machine.executor.read_msr(number)
        if value is None:
            raise DebuggerError(f"the CPU has no MSR {number:#x}: RDMSR would raise #GP(0)")
        return value

    def write_msr(self, number: int, value: int) -> None:
        """WRMSR in ring 0. Raises DebuggerError where the CPU would fault."""
        self.msr(number)
        if not self.machine.executor.write_msr(number, value):
            raise DebuggerError(f"MSR {number:#x} does not take {value:#x}: WRMSR would raise #GP(0)")
        self.forget()

    def native_segments(self, rules: Rules) -> tuple[SegmentView, ...]:
        """The segment registers, with what of them a CPU that goes by `rules` refuses. Where it refuses something that
        no segment stands for no row says yes."""
        broken, views = rules.broken(self.cpu(), self._try_physical), self.segments()
        first = {b.register: b.text for b in reversed(broken)}
        others = dict.fromkeys(b.register for b in broken if b.register not in {view.name for view in views})
        good = f"no, for {', '.join(others)}: see why" if others else "yes"
        return tuple(replace(view, native=first.get(view.name, good)) for view in views)

    def why(self, rules: Rules) -> EntryView:
        """Whether a CPU that goes by `rules` can enter the present state, why not, and which near instruction ends
        that. Inspection: nothing of the guest changes."""
        broken = rules.broken(self.cpu(), self._try_physical)
        ahead = self._ahead(rules) if broken and rules.of_state else ""
        return EntryView(rules.name, rules.title, tuple(str(b) for b in broken), ahead)

    def _ahead(self, rules: Rules) -> str:
        from emu.foresight import REACH, foresee  # of use here alone

        found = foresee(self.machine, lambda state: rules.enterable(state, self._try_physical))
        self.forget()
        if found is None:
            return f"no instruction among the next {REACH}, up to the first that reaches a device, changes that"
        linear, bits = found.before.linear_pc, code_bits(found.before)
        (shown,) = disasm.decode(found.code, linear, bits, found.before.rip, 1)
        loads = ", ".join(name.upper() for name in found.loads())
        return f"`{shown.text}` at {linear:#x} loads {loads}: behind it the state can be entered"

    def why_stuck(self) -> StuckView:
        """Whether the guest gets anywhere, and if not what it waits for. Inspection: nothing of it changes."""
        from emu.stuck import explain  # of use here alone

        view = explain(self.machine, self.last_stop)
        self.forget()
        return view

    def port_in(self, port: int, size: int = 1) -> int:
        """A real IN, with its side effects on the device."""
        self.machine.service()
        return self.machine.cpu_ports.port_in(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        """A real OUT, with its side effects on the device."""
        self.machine.service()
        self.machine.cpu_ports.port_out(port, size, value)
        self.forget()
