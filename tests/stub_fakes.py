"""A target in memory and a client without a socket, for tests of the gdb room."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from emu.x86.modes import code_bits
from emu.x86.state import CpuState
from stub.packet import Decoder, Event, Packet, frame
from stub.registers import X86Register, describe
from stub.session import Session
from stub.target import SIGNAL_INT, Description, PointHooks, Register, SpecialRange, StopReason, StopReport, TargetError
from stub.tracing import Experiment, Tracepoint

RAM = 0x20000
#: Made once for each width, as the adapter does.
described = functools.cache(describe)


class BareTarget:
    """Only what every target must have."""

    def __init__(self) -> None:
        self.listener: Callable[[StopReport], None] | None = None
        self.active = False
        self.last = StopReport()
        self.calls: list[object] = []

    @property
    def running(self) -> bool:
        return self.active

    def set_listener(self, listener: Callable[[StopReport], None] | None) -> None:
        self.listener = listener

    def report(self) -> StopReport:
        return self.last

    def halt(self) -> None:
        if self.active:
            self.calls.append("halt")
            self.stop(StopReport(SIGNAL_INT))

    def threads(self) -> tuple[int, ...]:
        return (1,)

    def thread_name(self, thread: int) -> str:
        return f"CPU {thread - 1}"

    def thread_text(self, thread: int) -> str:
        return "waits & <sees>"

    def stop(self, report: StopReport) -> None:
        """The guest stops."""
        self.active, self.last = False, report
        if self.listener is not None:
            self.listener(report)


class FakeTarget(BareTarget):
    """A CPU whose every instruction is one byte long and does nothing. CS is 1000h, its base 10000h, EIP 100h. There is
    a tracepoint, number 1 at 10100h; virtual time is 100 us for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu = CpuState(rip=0x100)
        self.cpu.cs.selector, self.cpu.cs.base = 0x1000, 0x10000
        self.memory = bytearray(range(256)) * (RAM // 256)
        self.points: set[tuple[object, ...]] = set()
        self.pc_is_offset = False
        self.steps_into_interrupts = False
        self.hooks: dict[int, PointHooks | None] = {}
        self.experiment = Experiment(lambda: 100)
        self.experiment.points[1, 0x10100] = Tracepoint(1, 0x10100, True, 0, b"")
        self.traced: dict[int, tuple[int, PointHooks]] = {}
        self.traces = 0
        self.followers: list[Callable[[], bool]] = []

    # registers and memory

    def describe(self) -> Description:
        return described(code_bits(self.cpu))

    def read_registers(self, thread: int, registers: Sequence[Register]) -> Sequence[bytes | None]:
        return [self.value(self.cpu, register) for register in registers]

    def value(self, cpu: CpuState, register: Register) -> bytes:
        assert isinstance(register, X86Register)
        value = cpu.linear_pc if register.is_pc else register.read(cpu)
        return value.to_bytes(register.size, "little")

    def write_register(self, thread: int, register: Register, data: bytes, row: bool = False) -> None:
        if register.name == "mode":
            raise TargetError("mode is derived: it cannot be written #1")
        self.calls.append((register.name, int.from_bytes(data, "little")))

    def write_pc(self, thread: int, address: int) -> None:
        self.cpu.rip = address - self.cpu.cs.base

    def read_memory(self, address: int, length: int) -> bytes:
        if address >= RAM:
            raise TargetError(f"{address:#x}: not mapped")
        return bytes(self.memory[address : address + length])

    def write_memory(self, address: int, data: bytes) -> None:
        if address + len(data) > RAM:
            raise TargetError(f"{RAM:#x}: not mapped")
        self.memory[address : address + len(data)] = data

    def read_physical(self, address: int, length: int) -> bytes:
        """What is linear 1000h higher."""
        return self.read_memory(address + 0x1000, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self.write_memory(address + 0x1000, data)

    def special_ranges(self) -> Sequence[SpecialRange] | None:
        return (
            SpecialRange(0x10000, 0x18000, True), SpecialRange(0x18000, 0x18020, False),
            SpecialRange(0x1F000, RAM, True),
        )  # fmt: skip

    # control

    def resume(self) -> None:
        """To the next breakpoint ahead, at once; without one it runs until it is interrupted."""
        self.active = True
        pc = self.cpu.linear_pc
        ahead = sorted(p[1] for p in self.points if p[0] in (0, 1) and isinstance(p[1], int) and p[1] > pc)
        if ahead:
            self.cpu.rip = ahead[0] - self.cpu.cs.base
            reason = StopReason.SWBREAK if (0, ahead[0]) in self.points else StopReason.HWBREAK
            self.stop(StopReport(reason=reason))

    def interrupt(self) -> None:
        self.calls.append("interrupt")
        if self.active:
            self.stop(StopReport(SIGNAL_INT))

    def step(self, thread: int) -> None:
        self.active = True
        self.cpu.rip += 1
        self.stop(StopReport())

    def step_range(self, thread: int, start: int, end: int) -> None:
        self.active = True
        self.cpu.rip = end - self.cpu.cs.base
        self.stop(StopReport())

    def restart(self) -> None:
        self.calls.append("restart")
        self.cpu.rip = 0x100
        self.last = StopReport()

    def kill(self) -> None:
        self.calls.append("kill")

    def detach(self) -> None:
        self.calls.append("detach")
        self.resume()

    # breakpoints

    def insert_software_breakpoint(self, address: int) -> None:
        self._insert(0, address)

    def remove_software_breakpoint(self, address: int) -> None:
        self.points.remove((0, address))

    def insert_hardware_breakpoint(self, address: int) -> None:
        self._insert(1, address)

    def remove_hardware_breakpoint(self, address: int) -> None:
        self.points.remove((1, address))

    def insert_watchpoint(self, reason: StopReason, address: int, length: int) -> None:
        self._insert(reason, address, length)

    def remove_watchpoint(self, reason: StopReason, address: int, length: int) -> None:
        self.points.remove((reason, address, length))

    def set_hooks(self, reason: StopReason, address: int, hooks: PointHooks | None) -> None:
        assert ((0 if reason is StopReason.SWBREAK else 1), address) in self.points
        self.hooks[address] = hooks

    def register_reader(self, register: Register) -> Callable[[], int]:
        return lambda: int.from_bytes(self.value(self.cpu, register) or b"", "little")

    def glance(self, address: int, length: int) -> bytes:
        return self.read_memory(address, length)

    # tracepoints

    def insert_tracepoint(self, address: int, hooks: PointHooks) -> int:
        self.traces += 1
        self.traced[self.traces] = address, hooks
        return self.traces

    def remove_tracepoint(self, id: int) -> None:
        del self.traced[id]

    def check_follow(self) -> None:
        if self.running:
            raise TargetError("nothing can be followed while it runs")

    def follow(self, told: Callable[[], bool]) -> None:
        if told not in self.followers:
            self.followers.append(told)

    def place(self) -> int:
        return self.cpu.linear_pc

    def snapshot(self) -> object:
        return self.cpu.copy()

    def describe_snapshot(self, snapshot: object) -> Description:
        assert isinstance(snapshot, CpuState)
        return described(code_bits(snapshot))

    def pc_at(self, address: int, register: Register) -> bytes | None:
        assert isinstance(register, X86Register)
        return address.to_bytes(register.size, "little") if register.is_pc else None

    def snapshot_register(self, snapshot: object, register: Register) -> bytes | None:
        assert isinstance(snapshot, CpuState)
        return self.value(snapshot, register)

    def arrive(self, address: int) -> None:
        """The guest is about to execute what is there, having executed one instruction."""
        self.cpu.rip = address - self.cpu.cs.base
        self.followers = [told for told in self.followers if told()]
        for where, hooks in tuple(self.traced.values()):
            if where == address and hooks.act is not None:
                hooks.act()

    def _insert(self, *point: object) -> None:
        assert point not in self.points, "a target is asked once"
        self.points.add(point)


class Backwards(FakeTarget):
    """Goes back by one instruction, or to the first one."""

    def reverse_step(self, thread: int) -> None:
        self.active = True
        self.cpu.rip -= 1
        self.stop(StopReport())

    def reverse_resume(self) -> None:
        self.active = True


class Client:
    """Speaks to a session in payloads."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.decoder = Decoder(1 << 20, repeats=True)
        self.events: list[object] = []

    def raw(self, data: bytes) -> bytes:
        """Bytes in, bytes out."""
        self.events += self.session.receive_data(data)
        return self.session.data_to_send()

    def incoming(self, data: bytes) -> list[bytes]:
        """The payloads in `data`, from the session or a socket."""
        self.decoder.receive_data(data)
        found: list[bytes] = []
        event: Event | None
        while (event := self.decoder.next_event()) is not None:
            if isinstance(event, Packet):
                found.append(event.payload)
        return found

    def ask(self, payload: bytes | str) -> list[bytes]:
        """All packets that answer one."""
        return self.incoming(self.raw(frame(payload.encode("latin-1") if isinstance(payload, str) else payload)))

    def one(self, payload: bytes | str) -> bytes:
        """The only packet that answers."""
        (answer,) = self.ask(payload)
        return answer


def client(target: BareTarget | None = None, **options: object) -> Client:
    """A client of a session on `target`."""
    return Client(Session(target or FakeTarget(), **options))  # type: ignore[arg-type]


#: What gdb 13 announces, but for `multiprocess+`, which gives every thread a longer name.
GDB_FEATURES = "qSupported:swbreak+;hwbreak+;vContSupported+;no-resumed+;xmlRegisters=i386"
