"""A vCPU whose state the C library moves (native/hop.c): between two CPUs without a copy of it in Python.

It has the same parts and rules as `xenbridge.kvm.vcpu.Vcpu`, which is used where the library was not built.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from ctypes import c_int, c_int32, c_uint32, c_uint64, c_void_p
from functools import partial
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
from xenbridge.kvm.vcpu import Vcpu
from xenbridge.kvm.vm import Vm

PIECES: Final = 256  #: runs of written pages that are told one by one
NO_ROOM: Final = -2  #: of `written`: there were more
EXITS_AGAIN: Final = 1  #: of `out`: the instruction has another access
MORE: Final = -1  #: of `over`: there is more to the state than is packed
#: Bits of `over`: the CPU is halted, A20 is masked, KVM has refused a part; CR8 is above them.
HALTED, A20_MASKED, REFUSED, CR8_SHIFT = 1, 2, 4, 4
UNUSUAL: Final = HALTED | A20_MASKED | REFUSED
#: What a guest changes without an exit where WRMSR of all others is one.
UNFILTERED: Final = frozenset((m.KERNEL_GS_BASE,))


class Hop(ctypes.Structure):
    """The shared part of struct hop of native/hop.c."""

    _fields_ = (
        ("run", c_void_p), ("packed", c_void_p), ("fd", c_int32), ("vm_fd", c_int32), ("changed", c_uint32),
        ("known", c_uint32), ("native", c_uint32), ("reads_tsc", c_uint32), ("tsc", c_uint64), ("apic_base", c_uint64),
        ("nmi_pending", c_uint32), ("unfinished", c_uint32), ("error", c_int32), ("_pad", c_uint32),
        ("request", c_uint64), ("logs", c_void_p), ("pieces", c_void_p), ("log_count", c_uint32),
        ("piece_count", c_uint32), ("pack", c_void_p), ("packing", c_void_p), ("system_calls", c_uint64),
    )  # fmt: skip
    changed: int
    known: int
    native: int
    reads_tsc: int
    tsc: int
    apic_base: int
    nmi_pending: int
    unfinished: int
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
        # None of its system calls waits, so it keeps Python's lock; that, and more than one argument, is most of what a
        # call costs.
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
        #: each is given its struct hop by reference
        self.enter, self.over, self.out = library.v2e_hop_in, library.v2e_hop_over, library.v2e_hop_out
        self.written = library.v2e_hop_written
        self.peek = f("peek", None, c_void_p)
        self.read = f("read", c_int, c_void_p, c_int)
        #: and these of xenbridge.kvm.requests a struct lent
        self.request, self.bare = library.v2e_request, library.v2e_request_bare
        self.lent_size: int = f("lent_size", c_uint32)()


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
        at = ctypes.byref(hop)
        self._in: Callable[[], int] = partial(self._library.enter, at)
        #: Has the emulator that shares pack its state, and goes on from that: MORE, with nothing done, or what is
        #: seldom met (HALTED and so on) and CR8.
        self.over: Callable[[], int] = partial(self._library.over, at)
        self._out: Callable[[], int] = partial(self._library.out, at)
        self._written: Callable[[], int] = partial(self._library.written, at)
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
        if self._in():
            raise self.failed()

    def give_up(self, unfinished: bool) -> bool:
        """Have KVM complete the instruction whose access was answered, with `unfinished`, and pack the state. False:
        the same instruction has another access, to be answered first."""
        self.hop.unfinished = unfinished
        ended = self._out()
        if ended < 0:
            raise self.failed()
        return ended != EXITS_AGAIN

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
        """The slots have changed: these are the logs that `written` asks for."""
        logs = self.vm.logs
        self._logs = (Log * len(logs))(*(Log(log.request, log.host, len(log.bitmap)) for log in logs))
        self.hop.logs, self.hop.log_count = ctypes.addressof(self._logs), len(logs)

    def written(self) -> int:
        """How many pieces of (host address, bytes) at `pieces` the guest has written since the last call; NO_ROOM: too
        many."""
        count = self._written()
        if count == -1:
            raise self.failed()
        return count


LIBRARY: Final = load_library()


def make_vcpu(vm: Vm, cpuid: Sequence[abi.CpuidEntry]) -> Vcpu:
    """The vCPU of `vm`, moved by the C library where there is one. Raises KvmError."""
    return Vcpu(vm, cpuid) if LIBRARY is None else FastVcpu(vm, cpuid, LIBRARY)
