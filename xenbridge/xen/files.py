"""Files of Xen as subjects to look at: a save stream (xl's too), a bare HVM context, a core."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from emu.inspector import DebuggerError
from emu.subject import MemoryUnavailable
from emu.views import DeviceView, PictureView, RegionView, ScreenView
from emu.x86.state import CpuState
from xenbridge.convert_cpu import context_cpu, take_ours
from xenbridge.wire import core, hvm, stream, xl
from xenbridge.wire.errors import WireError
from xenbridge.wire.hvm import Record
from xenbridge.wire.schema import Buffer, Values
from xenbridge.xen import file_devices
from xenbridge.xen.core_cpu import core_cpu
from xenbridge.xen.open_file import OpenFile

PAGE = 4096


class FileError(Exception):
    """A file cannot be used; one sentence with its name, and where in it the reason is."""


class XenFile:
    """Implements `emu.subject.Subject` and `Several`, read-only. `about` says in a few words what the file is. `cpu` is
    the vCPU that is shown first. `records` is empty for a core, `params` are HVM parameters where there are any."""

    read_only = True

    def __init__(self, data: Buffer, about: str, pages: Mapping[int, int], cpu: int, cpus: Sequence[int]) -> None:
        """`pages`: frame number to offset in `data`; `cpus`: the numbers of the vCPUs, ascending. Raises WireError
        where `cpu` is none of them."""
        if cpu not in cpus:
            there = ", ".join(map(str, cpus[:8])) + (", ..." if len(cpus) > 8 else "")
            last = f"the last one is {cpus[-1]}" if cpus and cpu > cpus[-1] else f"it was offline; the file has {there}"
            last = last if cpus else "it has none"
            raise WireError("file", f"vCPU {cpu}", 0, last)
        self._what = about
        self.data, self.pages = data, pages
        self.records: tuple[Record, ...] = ()
        self.params: dict[int, int] = {}
        self.ours: Values | None = None  #: what v2e adds to its own streams
        self.cpus = len(cpus)
        self._cpus, self._cpu = tuple(cpus), cpu

    @property
    def about(self) -> str:
        return self._what if self.cpus == 1 else f"{self._what}, {self.cpus} vCPUs, of which {self._cpu} is shown"

    @property
    def shown(self) -> int:
        return self._cpu

    def vcpus(self) -> tuple[int, ...]:
        return self._cpus

    def show(self, cpu: int) -> None:
        if cpu not in self._cpus:
            raise ValueError(f"no vCPU {cpu}")
        self._cpu = cpu

    def cpu_count(self) -> int:
        return 1

    def cpu_state(self, cpu: int = 0) -> CpuState:
        state = context_cpu(self.records, self._cpu)
        if self.ours is not None and not self._cpu:
            take_ours(state, self.ours)
        return state

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        return frozenset()

    # -- memory

    def _runs(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """(offset in the file, bytes) of each page's part, up to the first that is not there."""
        end = address + length
        while address < end:
            at = self.pages.get(address // PAGE)
            if at is None:
                return
            count = min(end - address, PAGE - address % PAGE)
            yield at + address % PAGE, count
            address += count

    def read_physical(self, address: int, length: int) -> bytes:
        """Raises MemoryUnavailable, and DebuggerError where the file has been shortened since it was opened."""
        try:
            data = b"".join(bytes(self.data[at : at + count]) for at, count in self._runs(address, length))
        except WireError as error:
            raise DebuggerError(str(error)) from None
        if len(data) < length:
            raise MemoryUnavailable(address + len(data), "not in the file")
        return data

    def readable_physical(self, address: int, length: int) -> int:
        return sum(count for _, count in self._runs(address, length))

    def write_physical(self, address: int, data: bytes) -> None:
        self._refuse()

    def check_write(self, address: int, data: bytes) -> None:
        self._refuse()

    def load_cpu(self, state: CpuState, cpu: int = 0) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise DebuggerError("a file is only looked at")

    def memory_map(self) -> tuple[RegionView, ...]:
        regions: list[RegionView] = []
        first = last = -2
        for frame in [*sorted(self.pages), -1]:
            if frame != last + 1:
                if first >= 0:
                    regions.append(RegionView(first * PAGE, last * PAGE + PAGE - 1, "ram", "in the file"))
                first = frame
            last = frame
        return tuple(regions)

    def port_map(self) -> tuple[RegionView, ...]:
        return ()

    # -- devices

    def devices(self) -> tuple[DeviceView, ...]:
        return file_devices.views(self.records, self._cpu)

    def screen(self) -> ScreenView:
        raise DebuggerError("the display belongs to the device model, whose state is not in the file")

    def picture(self) -> PictureView:
        raise DebuggerError("the display belongs to the device model, whose state is not in the file")


class CoreFile(XenFile):
    """A core: memory, and of the CPU what a PV guest would have."""

    def __init__(self, data: Buffer, parsed: core.Core, cpu: int) -> None:
        version = parsed.version
        xen = "" if version is None else f" of Xen {version['major_version']}.{version['minor_version']}"
        super().__init__(data, f"core{xen}", parsed.pages, cpu, range(len(parsed.vcpus)))
        self._values = parsed.vcpus
        self.show(cpu)

    def show(self, cpu: int) -> None:
        super().show(cpu)
        self._state, self._unknown = core_cpu(self._values[cpu])

    def cpu_state(self, cpu: int = 0) -> CpuState:
        return self._state.copy()

    def unknown(self, cpu: int = 0) -> frozenset[str]:
        return self._unknown

    def devices(self) -> tuple[DeviceView, ...]:
        raise DebuggerError("a core has no state of devices")


def _vcpus(records: tuple[Record, ...]) -> list[int]:
    """Xen saves no CPU record of a vCPU that is offline (xen/arch/x86/hvm/hvm.c, hvm_save_cpu_ctxt)."""
    return sorted(record.instance for record in records if record.code == hvm.CPU_CODE)


def _stream_file(data: Buffer, parsed: stream.Stream, about: str, cpu: int) -> XenFile:
    record = parsed.find(stream.HVM_CONTEXT)
    if record is None:
        raise WireError("stream", "HVM_CONTEXT", parsed.end, "there is no such record")
    records = hvm.parse_context(data, record.offset, record.offset + record.length)
    xen = f"{parsed.domain['xen_major']}.{parsed.domain['xen_minor']}"
    file = XenFile(data, about.format(xen=xen), parsed.pages, cpu, _vcpus(records))
    file.records, file.params, file.ours = records, stream.params(data, parsed), stream.ours(data, parsed)
    return file


def parse_file(data: Buffer, cpu: int = 0) -> XenFile:
    """The subject that `data` is. Raises WireError."""
    if not len(data):
        raise WireError("file", "", 0, "it is empty")
    if xl.is_xl(data):
        return _stream_file(data, xl.parse_xl(data).stream, "domain saved by xl on Xen {xen}", cpu)
    if core.is_elf(data):
        return CoreFile(data, core.parse_core(data), cpu)
    if bytes(data[:8]) == b"\xff" * 8:
        parsed = stream.parse_stream(data)
        if parsed.end != len(data):
            raise WireError("stream", "END", parsed.end, f"{len(data) - parsed.end} bytes follow it")
        return _stream_file(data, parsed, "save stream of Xen {xen}", cpu)
    if bytes(data[:2]) == b"\1\0":
        records = hvm.parse_context(data)
        file = XenFile(data, "HVM context", {}, cpu, _vcpus(records))
        file.records = records
        return file
    if bytes(data[:2]) == b"\x1f\x8b":
        raise WireError("file", "", 0, "it is compressed: unpack it with gunzip first")
    raise WireError("file", "", 0, "neither a save stream, nor an HVM context, nor a core of Xen")


def open_file(path: Path, cpu: int = 0) -> XenFile:
    """Raises FileError. Pages are read when they are looked at: the file may change meanwhile, and is seen so."""
    try:
        data = OpenFile(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise FileError(f"{str(path)!r} cannot be read: {why}") from None
    try:
        return parse_file(data, cpu)
    except WireError as error:
        raise FileError(f"{str(path)!r}: {error}") from None
