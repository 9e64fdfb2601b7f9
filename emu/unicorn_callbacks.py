"""What the guest reaches by calling back into Python: ports and MMIO.

No exception may pass through the engine's C frames, so each callback keeps the first one for the run to raise again,
and asks the gate to end the run before the next instruction. The functions are raw ctypes ones: the binding's own
hooks take four times as long.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int, c_uint, c_uint32, c_uint64, c_void_p

from emu.engine import MmioBus, PortIo
from emu.typed import Any, Final
from emu.unicorn_control import Control

MASK32: Final = (1 << 32) - 1
#: Instruction numbers of an INSN hook (include/unicorn/x86.h, UC_X86_INS_*).
INSN_IN, INSN_OUT = 218, 500

_IN = ctypes.CFUNCTYPE(c_uint32, c_void_p, c_uint32, c_int, c_void_p)
_OUT = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_int, c_uint32, c_void_p)
_READ = ctypes.CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint, c_void_p)
_WRITE = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint, c_uint64, c_void_p)
#: The C helper's: the bytes of an instruction, and how many.
TOLD = ctypes.CFUNCTYPE(None, c_void_p, c_int)


class Callbacks:
    """The callbacks of one engine. `error` is the first exception one of them met since it was taken last."""

    def __init__(self, io: PortIo, bus: MmioBus | None, control: Control) -> None:
        self._io, self._bus, self._control = io, bus, control
        self.error: BaseException | None = None
        #: called before each port access that reaches Python
        self.before_port: Callable[[], None] | None = None
        #: called behind each access with port and size while breakpoints on ports are enabled
        self.after_port: Callable[[int, int], None] | None = None
        #: told each time stamp that RDTSC (False) or RDTSCP (True) is answered with
        self.told_time: Callable[[int, bool], None] | None = None
        #: told the bytes of an instruction that is about to be executed, of the classes asked for
        self.told_instruction: Callable[[bytes], None] | None = None
        self.instruction = TOLD(self._instruction)
        #: told that the time-stamp counter has been written
        self.set_time: Callable[[], None] | None = None
        #: (instruction, function) of each INSN hook; kept alive here
        self.ports: tuple[tuple[int, Any], ...] = ((INSN_IN, _IN(self._in)), (INSN_OUT, _OUT(self._out)))
        #: uc_mmio_map's functions; their user data is the physical address of the range
        self.mmio_read = _READ(self._read)
        self.mmio_write = _WRITE(self._write)

    def failed(self, error: BaseException) -> None:
        """Keep `error` and end the run."""
        if self.error is None:
            self.error = error
        self._control.halt_run = 1

    def take_error(self) -> BaseException | None:
        """The exception to raise where no C frame is in between."""
        error, self.error = self.error, None
        return error

    def _in(self, _uc: int, port: int, size: int, _data: int) -> int:
        return self.port_in(port, size)

    def _out(self, _uc: int, port: int, size: int, value: int, _data: int) -> None:
        self.port_out(port, size, value & (1 << 8 * size) - 1)

    def port_in(self, port: int, size: int) -> int:
        """IN reached Python."""
        try:
            if self.before_port is not None:
                self.before_port()
            value = self._io.port_in(port, size)
            if self.after_port is not None:
                self.after_port(port, size)
            return value
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failed(error)
            return MASK32

    def port_out(self, port: int, size: int, value: int) -> None:
        """OUT reached Python."""
        try:
            if self.before_port is not None:
                self.before_port()
            self._io.port_out(port, size, value)
            if self.after_port is not None:
                self.after_port(port, size)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failed(error)

    def _read(self, _uc: int, offset: int, size: int, base: int | None) -> int:
        try:
            if self._bus is not None:
                return self._bus.mmio_read((base or 0) + offset, size)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failed(error)
        return (1 << 8 * size) - 1

    def _instruction(self, code: int, length: int) -> None:
        try:
            if self.told_instruction is not None:
                self.told_instruction(ctypes.string_at(code, length))
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failed(error)

    def floats(self, address: int) -> bool:
        """No device is in the page of the physical address."""
        return self._bus is None or not self._bus.answers(address)

    def _write(self, _uc: int, offset: int, size: int, value: int, base: int | None) -> None:
        try:
            if self._bus is not None:
                self._bus.mmio_write((base or 0) + offset, size, value & (1 << 8 * size) - 1)
        except BaseException as error:  # noqa: BLE001 - raised again by run()
            self.failed(error)
