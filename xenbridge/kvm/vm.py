"""A KVM virtual machine: memory slots over the machine's mapping, A20 by aliases, the log of written pages."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from emu.engine import MemoryRegion
from emu.record import dataclass
from xenbridge.kvm import abi
from xenbridge.kvm.abi import KvmError, ioctl

PAGE: Final = 0x1000
_GET_DIRTY_LOG: Final = abi.REQUESTS["GET_DIRTY_LOG"]
MIB: Final = 1 << 20
#: Three pages for KVM's own use on Intel CPUs without unrestricted guest, and one for its identity map: below the
#: firmware, where neither RAM nor a device of ours is (KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR).
TSS_ADDRESS, IDENTITY_ADDRESS = 0xFEFFD000, 0xFEFFC000


#: Without these capabilities there are no interrupt controllers and timer here.
NEEDED_DEVICES: Final = ("IRQCHIP", "PIT2", "PIT_STATE2", "REINJECT_CONTROL", "IRQ_ROUTING")
CASCADE: Final = 2  #: the master's input that the slave is at
#: The input that line 0, the 8254's, is at (MultiProcessor Specification 1.4, table 5-1).
IOAPIC_TIMER: Final = 2
_PIC_LINES, _IOAPIC, _IOAPIC_LINES = 16, 2, 24


def routes() -> Iterator[tuple[int, int, int]]:
    """(line, chip as by abi.Irqchip, its input) of a PC: 0 to 15 at the 8259, all but 2 at the I/O APIC. The kernel's
    own has line 0, which its 8254 drives, at input 0 there."""
    for line in range(_IOAPIC_LINES):
        if line < _PIC_LINES:
            yield line, line >> 3, line & 7
        if line != IOAPIC_TIMER:
            yield line, _IOAPIC, line or IOAPIC_TIMER


@dataclass(frozen=True, slots=True)
class Slot:
    """`size` bytes of this process from `host`, at physical `guest`."""

    guest: int
    size: int
    host: int
    rom: bool


def slots_of(regions: Iterable[MemoryRegion], *, a20: bool) -> tuple[Slot, ...]:
    """What the guest's physical memory is made of. With A20 masked each MiB whose address has bit 20 is the one below
    it, so the same memory stands in two places."""
    slots = [Slot(r.base, r.size, r.host_address, r.kind == "rom") for r in regions]
    return tuple(slots if a20 else _masked(slots))


def _masked(slots: Sequence[Slot]) -> Iterator[Slot]:
    for slot in slots:
        at, end = slot.guest, slot.guest + slot.size
        while at < end:
            size = min(end, (at & -MIB) + MIB) - at
            if not at & MIB:
                part = Slot(at, size, slot.host + at - slot.guest, slot.rom)
                yield part
                yield Slot(at | MIB, size, part.host, slot.rom)
            at += size


def _create(device: int, path: str) -> int:
    """A virtual machine's file descriptor. VMXON happens here, so here another hypervisor is met."""
    try:
        return ioctl(device, "CREATE_VM", 0)
    except KvmError as error:
        if error.number == errno.EBUSY:
            raise KvmError(abi.why_closed(path, errno.EBUSY), errno.EBUSY) from error
        raise


class _Log:
    """A slot's log of written pages: a bit for each, in whole 64-bit words, and the request for it."""

    __slots__ = ("_buffer", "address", "bitmap", "host", "number", "request", "zeros")

    def __init__(self, number: int, slot: Slot) -> None:
        self.number, self.host = number, slot.host
        self.bitmap = bytearray((-(-slot.size // PAGE // 64) + 1) * 8)
        self.zeros = bytes(len(self.bitmap))
        self._buffer = (ctypes.c_uint8 * len(self.bitmap)).from_buffer(self.bitmap)
        self.request = abi.DirtyLog(number, 0, ctypes.addressof(self._buffer))
        self.address = ctypes.addressof(self.request)


class Vm:
    """One virtual machine with one vCPU; it has no interrupt controller and no timer of its own, unless `add_devices`
    gives it those before its vCPU is made. Raises KvmError."""

    def __init__(self, device: str = abi.DEVICE) -> None:
        self._device = abi.open_device(device)
        self._slots: dict[Slot, int] = {}
        self._logs: list[_Log] = []
        self._reinject = False
        self.fd = -1
        try:
            self.fd = _create(self._device, device)
            ioctl(self.fd, "SET_TSS_ADDR", TSS_ADDRESS)
            ioctl(self.fd, "SET_IDENTITY_MAP_ADDR", ctypes.c_uint64(IDENTITY_ADDRESS))
            self.run_size = ioctl(self._device, "GET_VCPU_MMAP_SIZE")
            self.most_slots = self.offers("NR_MEMSLOTS")
        except KvmError:
            self.close()
            raise

    def offers(self, cap: str) -> int:
        """What KVM answers for the capability of this name in abi.CAPS; 0: it is not there."""
        return ioctl(self.fd, "CHECK_EXTENSION", abi.CAPS[cap])

    @property
    def logs(self) -> Sequence[_Log]:
        """The logs of written pages, of the slots as they are now."""
        return self._logs

    # -- memory

    def place(self, slots: Sequence[Slot]) -> None:
        """Replace the map of memory; slots that stay are not touched. Raises KvmError."""
        wanted = set(slots)
        if len(wanted) > self.most_slots:
            raise KvmError(f"this map of memory takes {len(wanted)} slots and this host's KVM has {self.most_slots}")
        for slot in [slot for slot in self._slots if slot not in wanted]:
            number = self._slots.pop(slot)
            self._logs = [log for log in self._logs if log.number != number]
            self._set(number, Slot(slot.guest, 0, slot.host, slot.rom))
        free = iter(sorted(set(range(len(wanted))) - set(self._slots.values())))
        for slot in slots:
            if slot not in self._slots:
                number = next(free)
                self._set(number, slot)
                self._slots[slot] = number
                if not slot.rom:
                    self._logs.append(_Log(number, slot))

    def _set(self, number: int, slot: Slot) -> None:
        flags = abi.MEM_READONLY if slot.rom else abi.MEM_LOG_DIRTY
        region = abi.MemoryRegion(number, flags if slot.size else 0, slot.guest, slot.size, slot.host)
        ioctl(self.fd, "SET_USER_MEMORY_REGION", region)

    def refresh(self) -> None:
        """Have KVM forget what it derived from the guest's page tables, which somebody else has written. Deleting a
        slot does it, so the smallest goes and comes back."""
        if self._slots:
            slot = min(self._slots, key=lambda s: s.size)
            number = self._slots[slot]
            self._set(number, Slot(slot.guest, 0, slot.host, slot.rom))
            self._set(number, slot)

    def written(self) -> list[tuple[int, int]]:
        """(host address, bytes) of the runs of pages that the guest has written since the last call."""
        runs: list[tuple[int, int]] = []
        for log in self._logs:
            if abi.call(self.fd, _GET_DIRTY_LOG, log.address) < 0:
                raise KvmError(f"KVM_GET_DIRTY_LOG failed: {os.strerror(ctypes.get_errno())}", ctypes.get_errno())
            if log.bitmap != log.zeros:
                runs += [(log.host + first * PAGE, count * PAGE) for first, count in bit_runs(log.bitmap)]
        return runs

    # -- interrupt controllers and timer in the kernel

    def add_devices(self, *, reinject: bool) -> None:
        """Both 8259, the I/O APIC, each vCPU's local APIC, and the 8254 with port 61h, in the kernel. `reinject`: a
        tick that finds the one before not acknowledged comes later instead of being dropped."""
        missing = [name for name in NEEDED_DEVICES if not self.offers(name)]
        if missing:
            raise KvmError(
                f"the KVM of this host has no interrupt controllers and timer: it lacks {', '.join(missing)}"
            )
        ioctl(self.fd, "CREATE_IRQCHIP")
        ioctl(self.fd, "CREATE_PIT2", abi.PitConfig(abi.PitConfig.SPEAKER))
        ioctl(self.fd, "REINJECT_CONTROL", abi.ReinjectControl(reinject))
        self._reinject = reinject
        entries = [abi.RoutingEntry(gsi, abi.RoutingEntry.IRQCHIP, chip=chip, pin=pin) for gsi, chip, pin in routes()]
        table = bytes(abi.RoutingHead(len(entries))) + b"".join(map(bytes, entries))
        ioctl(self.fd, "SET_GSI_ROUTING", ctypes.create_string_buffer(table, len(table)))

    def set_line(self, irq: int, level: bool) -> None:
        """Drive the line `irq` at the controllers in the kernel, as `routes` has it."""
        ioctl(self.fd, "IRQ_LINE", abi.IrqLevel(irq, level))

    def drive_int(self) -> None:
        """Have the 8259 drive INT by their requests as they are. The kernel does not where ICW1 has dropped one
        (arch/x86/kvm/i8259.c: kvm_pic_reset), but with each change of a line, of which the cascade is one that nobody
        drives: the slave's INT is at the master by another way."""
        self.set_line(CASCADE, False)

    def replace_timer(self, on: bool) -> bool:
        """Whether counter 0 of the 8254 is cut off the lines, as by an HPET's legacy replacement, and its ticks that
        are still to come with it. Its period begins anew behind that, and so do the counts of the others at each
        change. False: it is so already."""
        state = self.pit()
        if bool(state.flags & state.HPET_LEGACY) == on:
            return False
        # What is kept of the ticks would come behind an acknowledge of the HPET's.
        ioctl(self.fd, "REINJECT_CONTROL", abi.ReinjectControl(self._reinject and not on))
        state.flags ^= state.HPET_LEGACY
        ioctl(self.fd, "SET_PIT2", state)
        return True

    def pic(self, chip: int) -> abi.PicState:
        """The state of the 8259 that is master (0) or slave (1), without side effects."""
        state = abi.Irqchip(chip)
        ioctl(self.fd, "GET_IRQCHIP", state)
        found: abi.PicState = state.pic
        return found

    def ioapic(self) -> bytes:
        """struct kvm_ioapic_state, without side effects."""
        state = abi.Irqchip(2)
        ioctl(self.fd, "GET_IRQCHIP", state)
        return bytes(state)[abi.Irqchip.pic.offset :]

    def set_pic(self, chip: int, pic: abi.PicState) -> None:
        """Replace it. The kernel drives INT anew."""
        ioctl(self.fd, "SET_IRQCHIP", abi.Irqchip(chip, 0, pic))

    def kept(self) -> tuple[list[abi.Irqchip], abi.PitState2]:
        """The state of both 8259, the I/O APIC and the 8254 as a whole, for `restore`."""
        chips = [abi.Irqchip(chip) for chip in range(3)]
        for chip in chips:
            ioctl(self.fd, "GET_IRQCHIP", chip)
        return chips, self.pit()

    def restore(self, kept: tuple[list[abi.Irqchip], abi.PitState2]) -> None:
        """Put them back; counters begin anew."""
        for chip in kept[0]:
            ioctl(self.fd, "SET_IRQCHIP", chip)
        ioctl(self.fd, "SET_PIT2", kept[1])
        ioctl(
            self.fd, "REINJECT_CONTROL", abi.ReinjectControl(self._reinject and not kept[1].flags & kept[1].HPET_LEGACY)
        )

    def pit(self) -> abi.PitState2:
        """The state of the 8254, without side effects; its counts are those at `count_load_time`."""
        state = abi.PitState2()
        ioctl(self.fd, "GET_PIT2", state)
        return state

    # -- as a whole

    def filter_msrs(self, native: Sequence[int]) -> bool:
        """Let RDMSR and WRMSR of all registers but `native`, which lie within 64 numbers, end a run. False: this KVM
        cannot."""
        if not (self.offers("X86_USER_SPACE_MSR") and self.offers("X86_MSR_FILTER")):
            return False
        capability = abi.EnableCap(abi.CAPS["X86_USER_SPACE_MSR"])
        capability.args[0] = abi.MSR_EXIT_ALL
        base = min(native)
        bitmap = (ctypes.c_uint8 * 8).from_buffer_copy(sum(1 << n - base for n in native).to_bytes(8, "little"))
        rules = abi.MsrFilter(abi.MsrFilter.DENY)
        rules.ranges[0] = abi.MsrRange(abi.MSR_RANGE_READ | abi.MSR_RANGE_WRITE, 64, base, ctypes.addressof(bitmap))
        try:
            ioctl(self.fd, "ENABLE_CAP", capability)
            ioctl(self.fd, "X86_SET_MSR_FILTER", rules)
        except KvmError:
            return False
        return True

    def close(self) -> None:
        """Give everything back. The guest's memory is the machine's, and stays."""
        for fd in (self.fd, self._device):
            if fd >= 0:
                os.close(fd)
        self.fd = self._device = -1


def bit_runs(data: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """(first bit, count) of the runs of ones in a little-endian bitmap of whole 64-bit words."""
    start = end = -1
    for index, word in enumerate(memoryview(data).cast("Q")):
        at = index * 64
        while word:
            gap = (word & -word).bit_length() - 1
            word >>= gap
            count = (~word & word + 1).bit_length() - 1
            word >>= count
            if at + gap != end:
                if start >= 0:
                    yield start, end - start
                start = at + gap
            at += gap + count
            end = at
    if start >= 0:
        yield start, end - start
