"""A vCPU whose state the C library moves (native/hop.c): between two CPUs without a copy of it in Python.

It has the same parts and rules as `xenbridge.kvm.vcpu.Vcpu`, which is used where the library was not built.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import c_int, c_int32, c_uint32, c_uint64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, Final

from emu.packed import MSRS, Packed, pack_state, unpack_fpu, unpack_msrs, unpack_state
from emu.x86 import msrs as m
from emu.x86.state import CpuState, Fpu
from xenbridge.kvm import abi
from xenbridge.kvm.abi import KvmError
from xenbridge.kvm.live import LiveState
from xenbridge.kvm.native import sources_checksum
from xenbridge.kvm.vcpu import INTERRUPTED, Vcpu
from xenbridge.kvm.vm import Vm

PIECES: Final = 256  #: runs of written pages that are told one by one
#: What `leave` is told: an access was answered whose instruction is to be completed; the guest has run since it was
#: asked last; it is halted; A20 is not masked.
UNFINISHED, RAN, IS_HALTED, A20_OPEN = 1, 2, 4, 8
#: What it says: that the instruction has another access; or PART_* that changed, and how many pieces were written.
AGAIN, PARTS_SHIFT, PARTS_MASK, PIECES_SHIFT = 1, 4, 0xF, 16
NO_ROOM: Final = 0x7FFF  #: of pieces: there were more
MORE: Final = -1  #: of `over`: there is more to the state than is packed
#: Bits of `over`: the CPU is halted, A20 is masked, KVM has refused a part; CR8 is above them.
HALTED, A20_MASKED, REFUSED, CR8_SHIFT = 1, 2, 4, 4
UNUSUAL: Final = HALTED | A20_MASKED | REFUSED
#: The functions of native/direct.c, in their order there.
DIRECT: Final = ("over", "leave", "run", "bare", "request")
#: What a guest changes without an exit where WRMSR of all others is one.
UNFILTERED: Final = frozenset((m.KERNEL_GS_BASE,))


class Hop(ctypes.Structure):
    """The shared part of struct hop of native/hop.c."""

    _fields_ = (
        ("run", c_void_p), ("packed", c_void_p), ("fd", c_int32), ("vm_fd", c_int32), ("changed", c_uint32),
        ("known", c_uint32), ("native", c_uint32), ("reads_tsc", c_uint32), ("tsc", c_uint64), ("apic_base", c_uint64),
        ("nmi_pending", c_uint32), ("error", c_int32),
        ("request", c_uint64), ("logs", c_void_p), ("pieces", c_void_p), ("log_count", c_uint32),
        ("piece_count", c_uint32), ("pack", c_void_p), ("packing", c_void_p), ("system_calls", c_uint64),
    )  # fmt: skip
    fd: int
    changed: int
    known: int
    native: int
    reads_tsc: int
    tsc: int
    apic_base: int
    nmi_pending: int
    error: int
    pack: int
    packing: int
    request: int
    log_count: int
    system_calls: int


class Log(ctypes.Structure):
    """struct log: a slot's KVM_GET_DIRTY_LOG, the slot's address in this process, the bitmap's bytes."""

    _fields_ = (("request", abi.DirtyLog), ("host", c_uint64), ("bytes", c_uint64))


class Library:
    """The functions of the C library. Raises OSError or AttributeError where it is not there or not whole, and KvmError
    where it was built from other sources."""

    def __init__(self, path: str) -> None:
        # None of its system calls waits, so it keeps Python's lock.
        library = ctypes.PyDLL(path)

        def f(name: str, result: Any, *arguments: Any) -> Any:
            function = getattr(library, f"v2e_hop_{name}")
            function.restype, function.argtypes = result, arguments
            return function

        layout, sources = f("layout", c_uint64)(), f("sources", c_uint32)()
        self.size = layout >> 32
        shared = ctypes.sizeof(Hop) << 16 | ctypes.sizeof(Packed)
        if layout & 0xFFFFFFFF != shared or sources not in (0, sources_checksum()):
            raise KvmError("xenbridge/kvm/native was built from other sources than this package's; install it again")
        #: each is given its struct hop's address
        self.enter, self.peek = f("in", c_int, c_void_p), f("peek", None, c_void_p)
        self.read = f("read", c_int, c_void_p, c_int)
        self._direct = f("direct", ctypes.py_object, c_uint32, c_void_p)
        self.lent_size: int = f("lent_size", c_uint32)()  #: of xenbridge.kvm.requests

    def direct(self, name: str, about: int) -> Callable[..., Any]:
        """The function of DIRECT as one of Python's own, about the structure at the address `about`, which is kept as
        long as it. ctypes would take as long for a call as the C code."""
        function: Callable[..., Any] = self._direct(DIRECT.index(name), about)
        return function


def load_library() -> Library | None:
    """The library; None where it was not built."""
    folder = Path(__file__).parent / "native"
    path = next((p for suffix in EXTENSION_SUFFIXES if (p := folder / f"_hop{suffix}").exists()), None)
    if path is None:
        return None
    try:
        return Library(str(path))
    except (OSError, AttributeError, KvmError):
        return None


class PackedBeside:
    """See Beside: of what `packed` gives, and the rest as it was given, found out when it is asked for."""

    def __init__(self, packed: Callable[[], Packed]) -> None:
        self._packed = packed
        #: what is not packed, or what answers it when it is asked first; a hop in writes it
        self.given: CpuState | Callable[[], CpuState] = CpuState()

    @property
    def rest(self) -> CpuState:
        """A state that has what is not packed."""
        if not isinstance(self.given, CpuState):
            self.given = self.given()
        return self.given

    @property
    def tsc_adjust(self) -> int:
        """IA32_TSC_ADJUST."""
        return self._packed().tsc_adjust

    @property
    def fpu(self) -> Fpu:
        return unpack_fpu(self._packed())

    @property
    def dr(self) -> list[int]:
        return list(self._packed().dr)

    @property
    def msrs(self) -> dict[int, int]:
        return unpack_msrs(self._packed(), self.rest.msrs)

    @property
    def smbase(self) -> int:
        return self.rest.smbase

    @property
    def xcr0(self) -> int:
        return self.rest.xcr0


class FastVcpu(Vcpu):
    """See Vcpu. `library` is the C library."""

    def __init__(self, vm: Vm, cpuid: Sequence[abi.CpuidEntry], library: Library) -> None:
        self._library = library
        super().__init__(vm, cpuid)

    def _begin(self, known: Sequence[int]) -> None:
        self._memory = (ctypes.c_uint8 * self._library.size)()
        hop = self.hop = Hop.from_buffer(self._memory)
        self._pieces = (c_uint64 * (2 * PIECES))()
        self._logs: ctypes.Array[Log] = (Log * 0)()
        self.pieces = ctypes.addressof(self._pieces)
        hop.run = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        hop.fd, hop.vm_fd = self.fd, self.vm.fd
        hop.known = hop.native = sum(1 << i for i, number in enumerate(MSRS) if number in known)
        hop.reads_tsc, hop.apic_base = 1, m.APIC_BASE_RESET
        hop.pieces, hop.piece_count = self.pieces, PIECES
        self._at = ctypes.addressof(hop)
        self.packed = Packed()
        self.share(self.packed)
        direct = self._library.direct
        #: Has the emulator that shares pack its state, and goes on from that: MORE, with nothing done, or what is
        #: seldom met (HALTED and so on) and CR8.
        self.over: Callable[[], int] = direct("over", self._at)
        #: Packs the state that KVM has come to, and finds the pages that it has written, (host address, bytes) each
        #: at `pieces`. Told UNFINISHED and so on it says AGAIN, with nothing done, or which parts and how many pieces;
        #: -1: see `failed`.
        self.leave: Callable[[int], int] = direct("leave", self._at)
        self._run_kvm: Callable[[], int] = direct("run", self._at)
        #: of the state in place what KVM does not show in its page
        self.beside = PackedBeside(lambda: self.packed)
        self.live = LiveState(self._map, self.beside)
        self.read_back()

    def share(self, packed: Packed, function: int = 0, argument: int = 0) -> None:
        """Let the state be packed there from now on, for `over` by the C function at that address."""
        ctypes.memmove(ctypes.addressof(packed), ctypes.addressof(self.packed), ctypes.sizeof(Packed))
        self.packed, self.hop.packed = packed, ctypes.addressof(packed)
        self.hop.pack, self.hop.packing = function, argument

    def reads(self, *, filtered: bool, tsc: bool) -> None:
        """What has to be asked for behind a native stretch: with `filtered` only the MSRs that a guest changes without
        an exit, else all; and the TSC."""
        known = self.hop.known
        native = sum(1 << i for i, number in enumerate(MSRS) if number in UNFILTERED) if filtered else known
        self.hop.native, self.hop.reads_tsc = known & native, tsc

    def run(self) -> int:
        """See Vcpu."""
        reason = self._run_kvm()
        if reason < INTERRUPTED:
            number = INTERRUPTED - reason
            raise KvmError(f"KVM_RUN failed: {os.strerror(number)}", number)
        return reason

    def close(self) -> None:
        """See Vcpu."""
        super().close()
        self.hop.fd = -1

    # -- state

    def failed(self) -> KvmError:
        """What the library's last failure is in words."""
        hop = self.hop
        if not hop.error:
            value = self.packed.msrs[next(i for i, number in enumerate(MSRS) if number == hop.request)]
            return KvmError(f"KVM refuses the value {value:#x} of MSR {hop.request:#x}")
        name = next((name for name, number in abi.REQUESTS.items() if number == hop.request), hex(hop.request))
        return KvmError(f"KVM_{name} failed: {os.strerror(hop.error)}", hop.error)

    def load(self, state: CpuState) -> None:
        """See Vcpu."""
        pack_state(state, self.packed)
        hop = self.hop
        hop.nmi_pending = state.nmi_pending
        hop.apic_base = state.msrs.get(m.APIC_BASE, m.APIC_BASE_RESET)
        self.beside.given = state.copy()
        if self._library.enter(self._at):
            raise self.failed()
        self.load_xcr0(state.xcr0)

    def read_back(self) -> None:
        """See Vcpu."""
        if self._library.read(self._at, 1) < 0:
            raise self.failed()
        self.tsc = self.hop.tsc

    def quick_state(self) -> CpuState:
        """See Vcpu."""
        self._library.peek(self._at)
        live = self.live
        state = unpack_state(self.packed, self.beside.rest)
        state.halted, state.a20 = live.halted, live.a20
        state.nmi_pending = self.nmi_waits or live.nmi_pending
        return state

    # -- written pages

    def watch_pages(self) -> None:
        """The slots have changed: these are the logs that `leave` asks for."""
        logs = self.vm.logs
        self._logs = (Log * len(logs))(*(Log(log.request, log.host, len(log.bitmap)) for log in logs))
        self.hop.logs, self.hop.log_count = ctypes.addressof(self._logs), len(logs)


LIBRARY: Final = load_library()


def make_vcpu(vm: Vm, cpuid: Sequence[abi.CpuidEntry]) -> Vcpu:
    """The vCPU of `vm`, moved by the C library where there is one. Raises KvmError."""
    return Vcpu(vm, cpuid) if LIBRARY is None else FastVcpu(vm, cpuid, LIBRARY)
