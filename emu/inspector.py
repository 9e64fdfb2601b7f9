"""Inspection of any subject: registers, memory, segments, tables, pages, disassembly. Never a side effect.

Every method runs on the thread that owns the subject.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from emu.subject import MemoryUnavailable, Several, Subject, is_unknown
from emu.typed import TYPE_CHECKING
from emu.views import (
    DeviceView,
    InstructionView,
    PageWalkView,
    PictureView,
    RegistersView,
    RegisterView,
    ScreenView,
    SegmentView,
    TableEntryView,
    VcpuView,
)
from emu.x86 import disasm, paging
from emu.x86.modes import Mode, code_bits, mode_of
from emu.x86.registers import REGISTERS, RegisterError, flag_names
from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, RFLAGS_VM, SEGMENTS, CpuState

if TYPE_CHECKING:
    from emu.packed import Flat
    from emu.sweep import Run
    from emu.x86.pagemap import Page

PHYSICAL_BITS = 40  #: of the engine's CPU (CPUID 80000008h, EAX 7:0)
MAX_INSTRUCTION = 15  #: bytes (SDM vol. 2A, 2.3.11)
READ_ONLY = "this is only looked at: nothing in it runs or is written"


class DebuggerError(Exception):
    """One sentence for the user."""


def _in_words(unknown: str) -> str:
    """A name of `Subject.unknown`, for a sentence."""
    if unknown == "cs.width":
        return "whether this is 16-, 32- or 64-bit code"
    name, _, part = unknown.partition(".")
    return f"the {part} of {name.upper()}" if part else name.upper()


class Inspector:
    """Views over a subject, with the CPU's state cached until `forget`."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._cpu: CpuState | None = None
        self._in_place: CpuState | None = None

    def forget(self) -> None:
        """The subject has moved on: read its CPU anew."""
        self._cpu = self._in_place = None

    # -- CPU

    def vcpu_numbers(self) -> tuple[int, ...]:
        """Those that can be shown, ascending."""
        return self.subject.vcpus() if isinstance(self.subject, Several) else (0,)

    @property
    def shown_vcpu(self) -> int:
        """The vCPU that all views are of."""
        return self.subject.shown if isinstance(self.subject, Several) else 0

    def show_vcpu(self, cpu: int) -> None:
        """All views are of `cpu` from now on. Raises DebuggerError where there is none of that number."""
        numbers = self.vcpu_numbers()
        if cpu not in numbers:
            known = "there is one, 0" if len(numbers) == 1 else f"there are {', '.join(map(str, numbers[:32]))}"
            raise DebuggerError(f"no vCPU {cpu}: {known}")
        if isinstance(self.subject, Several):
            self.subject.show(cpu)
            self.forget()

    def vcpus(self) -> tuple[VcpuView, ...]:
        """Each of them. Raises DebuggerError for a live domain with several, of which one is chosen when attached."""
        numbers, shown = self.vcpu_numbers(), self.shown_vcpu
        if len(numbers) == 1 and (count := self.subject.cpu_count()) > 1:
            raise DebuggerError(f"there are {count} vCPUs: --vcpu chooses the one that is looked at")
        try:
            return tuple(self._vcpu(number, number == shown) for number in numbers)
        finally:
            self.show_vcpu(shown)

    def _vcpu(self, number: int, shown: bool) -> VcpuView:
        self.show_vcpu(number)
        state = self.cpu()
        return VcpuView(number, shown, self.mode_label(), state.cs.selector, state.rip, self.linear_pc(), state.cr3)

    @property
    def read_only(self) -> bool:
        return self.subject.read_only

    def cpu(self) -> CpuState:
        """The CPU's state, cached while it stands still: do not modify."""
        if self._cpu is None:
            self._cpu = self.subject.cpu_state()
        return self._cpu

    def cpu_in_place(self) -> CpuState:
        """What reads as `cpu` does, without a copy where none has been made: for a look at a few registers while the
        CPU stands still. Not for keeping and not to be changed."""
        if self._in_place is None:
            self._in_place = self._cpu or self._stood()
        return self._in_place

    def flat_cpu(self) -> Flat | None:
        """All of `cpu` in one flat structure, where that is to be had in less time: not for keeping and not to be
        changed."""
        return None

    def _stood(self) -> CpuState:
        """What `cpu_in_place` gives, where nobody has asked since the subject moved."""
        return self.cpu()

    def unknown(self) -> frozenset[str]:
        """See Subject."""
        return self.subject.unknown()

    def need(self, *names: str) -> None:
        """Raises DebuggerError where one of the names is of state that the subject does not have."""
        unknown = self.unknown()
        for name in names:
            if name in unknown or name.partition(".")[0] in unknown:
                raise DebuggerError(f"{_in_words(name)} is unknown: the file has no hidden state of the CPU")

    def _need_paging(self, state: CpuState) -> None:
        """PAE's and 4-level page tables are told apart by EFER alone."""
        if state.cr0 & CR0_PG and state.cr4 & CR4_PAE:
            self.need("efer")

    def mode_label(self) -> str:
        """The mode in words, as far as it is known."""
        state, unknown = self.cpu_in_place(), self.unknown()
        if "cs.width" not in unknown and "cs.limit" not in unknown:
            return mode_of(state).label
        if not state.cr0 & CR0_PE:
            return "real"
        if state.rflags & RFLAGS_VM or "cs.width" not in unknown:
            return mode_of(state).label
        return "protected, code width unknown"

    def linear_pc(self) -> int | None:
        """Of the next instruction; None where CS's base is unknown."""
        return None if "cs.base" in self.unknown() else self.cpu().linear_pc

    def live_cpu(self) -> CpuState:
        """What reads as the CPU's state at any moment, without a copy: for a look at a few registers. Not for keeping
        and not to be changed."""
        return self.cpu()

    def glance(self, address: int, length: int) -> bytes:
        """As `read_linear`, by the page tables and registers of this moment, whatever was cached. Raises
        MemoryUnavailable likewise."""
        state = self.live_cpu()
        at = address & (0xFFFFFFFFFFFFFFFF if state.long64 else 0xFFFFFFFF)
        here = min(length, 0x1000 - (at & 0xFFF))
        physical = paging.translate(state, self._try_physical, at, PHYSICAL_BITS)
        if physical is None:
            raise MemoryUnavailable(at, "not mapped")
        try:
            data = self.subject.read_physical(physical, here)
        except MemoryUnavailable:
            have = self.subject.readable_physical(physical, here)
            raise MemoryUnavailable(at + have, "no memory behind this address") from None
        return data if here == length else data + self.glance(at + here, length - here)

    def try_glance(self, address: int, length: int) -> bytes | None:
        """As `glance`, or None."""
        try:
            return self.glance(address, length)
        except MemoryUnavailable:
            return None

    def place(self, address: int) -> int | None:
        """As `translate`, by the page tables and registers of this moment."""
        return paging.translate(self.live_cpu(), self._try_physical, address, PHYSICAL_BITS)

    def load_cpu(self, state: CpuState) -> None:
        self.subject.load_cpu(state)
        self.forget()

    def mode(self) -> Mode:
        return mode_of(self.cpu())

    def read_register(self, name: str) -> int:
        """Raises DebuggerError for a name that is not in `emu.x86.registers.REGISTERS`."""
        register = REGISTERS.get(name)
        if register is None:
            raise DebuggerError(f"no register is called {name!r}")
        if is_unknown(name, self.unknown()):
            raise DebuggerError(f"{name} is unknown: the file has no hidden state of the CPU")
        return register.get(self.cpu())

    def write_register(self, name: str, value: int) -> None:
        """As the CPU would be loaded: a selector in protected mode takes its descriptor from the table.

        Raises DebuggerError where the CPU does not allow the value."""
        register = REGISTERS.get(name)
        if register is None:
            raise DebuggerError(f"no register is called {name!r}")
        self._may_write()
        state = self.cpu().copy()
        try:
            if name in (*SEGMENTS, "ldtr", "tr"):
                from emu.x86.descriptors import load_selector

                load_selector(state, name, value, self._try_linear)
            elif register.set is None:
                raise DebuggerError(f"{name} is derived from other registers and cannot be written")
            else:
                register.set(state, value)
        except RegisterError as error:
            raise DebuggerError(str(error)) from None
        self.load_cpu(state)

    def write_selector(self, name: str, value: int) -> None:
        """The visible part of a segment register (es cs ss ds fs gs ldtr tr), 16 bits; its cache stays. For what a
        client has saved, where a table no longer has it. Raises DebuggerError for a subject that is only looked at."""
        self._may_write()
        state = self.cpu().copy()
        state.segment(name).selector = value
        self.load_cpu(state)

    def _may_write(self) -> None:
        """Raises DebuggerError for a subject that is only looked at."""
        if self.read_only:
            raise DebuggerError(READ_ONLY)

    # -- memory: peeks, without side effects on devices

    def translate(self, linear: int) -> int | None:
        """The physical address of `linear`, None when it is not mapped."""
        state = self.cpu_in_place()
        self._need_paging(state)
        return paging.translate(state, self._try_physical, linear, PHYSICAL_BITS)

    def _place_of(self, linear: int) -> int | None:
        """As `translate`, None for what is beyond the linear address space, too."""
        state = self._in_place or self.cpu_in_place()
        if not state.cr0 & CR0_PG:
            return None if linear >> 32 else linear if state.a20 else paging.with_a20(state, linear)
        self._need_paging(state)
        if linear >> 32 and not state.long64:
            return None
        return paging.translate(state, self._try_physical, linear, PHYSICAL_BITS)

    def _is_together(self, address: int, length: int) -> bool:
        """The bytes from linear `address` stand one behind the other in physical memory, too."""
        if length <= 0x1000 - (address & 0xFFF):
            return length > 0
        state = self._in_place or self.cpu_in_place()
        return not state.cr0 & CR0_PG and state.a20 and address + length <= 1 << 32

    def _pieces(self, address: int, length: int) -> Generator[tuple[int, int, int], None, None]:
        """(linear, physical, length) of each page's part; ends early where nothing is mapped."""
        end = address + length
        # The linear address space ends at 4 GiB outside 64-bit mode: nothing is above, and nothing wraps.
        space = 1 << 64 if self.cpu_in_place().long64 else 1 << 32
        while address < min(end, space):
            physical = self.translate(address)
            if physical is None:
                return
            count = min(end - address, 0x1000 - (address & 0xFFF))
            yield address, physical, count
            address += count

    def readable(self, address: int, length: int) -> int:
        """How many of `length` bytes from linear `address` can be read, from the first on."""
        done = 0
        for _, physical, count in self._pieces(address, length):
            have = self.subject.readable_physical(physical, count)
            done += have
            if have < count:
                break
        return done

    def runs(self, address: int, length: int, *, physical: bool = False) -> Iterator[Run]:
        """What of the range can be read, in runs that are one piece of memory each: see `emu.sweep`."""
        from emu.sweep import readable_runs
        from emu.x86.extents import extents

        if physical:
            return readable_runs(self.subject, ((address, address, length),) if length else ())
        state = self.cpu_in_place()
        self._need_paging(state)
        end = min(address + length, 1 << 64 if state.long64 else 1 << 32)
        return readable_runs(self.subject, extents(state, self._try_physical, address, end, PHYSICAL_BITS))

    def read_linear(self, address: int, length: int) -> bytes:
        """Raises MemoryUnavailable with the linear address of the first byte that cannot be read."""
        if 0 < length <= 0x1000 - (address & 0xFFF) and (physical := self._place_of(address)) is not None:
            try:
                return self.subject.read_physical(physical, length)
            except MemoryUnavailable:
                pass  # which byte cannot be read is seen below
        out = bytearray()
        for linear, physical, count in self._pieces(address, length):
            have = self.subject.readable_physical(physical, count)
            if have < count:
                raise MemoryUnavailable(linear + have, "no memory behind this address")
            out += self.subject.read_physical(physical, count)
        if len(out) < length:
            raise MemoryUnavailable(address + len(out), "not mapped")
        return bytes(out)

    def _try_physical(self, address: int, length: int) -> bytes | None:
        try:
            return self.subject.read_physical(address, length)
        except MemoryUnavailable:
            return None

    def _try_linear(self, address: int, length: int) -> bytes | None:
        try:
            return self.read_linear(address, length)
        except MemoryUnavailable:
            return None

    def write_linear(self, address: int, data: bytes) -> None:
        """ROM is written too, as a debugger may. Raises MemoryUnavailable with nothing written."""
        self._may_write()
        if self._is_together(address, len(data)) and (physical := self._place_of(address)) is not None:
            try:
                self.subject.write_physical(physical, data)
                return
            except MemoryUnavailable:
                pass  # which byte cannot be written is seen below
        have = self.readable(address, len(data))
        if have < len(data):
            raise MemoryUnavailable(address + have, "no memory behind this address")
        pieces, done = list(self._pieces(address, len(data))), 0
        for linear, physical, count in pieces:
            try:
                self.subject.check_write(physical, data[linear - address : linear - address + count])
            except MemoryUnavailable as error:
                raise MemoryUnavailable(linear + error.address - physical, error.why) from None
        for _, physical, count in pieces:
            self.subject.write_physical(physical, data[done : done + count])
            done += count

    def read_physical(self, address: int, length: int) -> bytes:
        return self.subject.read_physical(address, length)

    def write_physical(self, address: int, data: bytes) -> None:
        self._may_write()
        self.subject.write_physical(address, data)

    # -- views

    def registers(self) -> RegistersView:
        state = self.cpu()
        wide = code_bits(state) == 64
        names = (
            "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags"
            if wide
            else "eax ebx ecx edx esi edi ebp esp eip eflags"
        )
        rows = [REGISTERS[name] for name in names.split()]
        return RegistersView(
            self.mode_label(),
            self.linear_pc(),
            tuple(RegisterView(r.name, r.bits, r.get(state)) for r in rows),
            flag_names(REGISTERS["eflags"], state.rflags),
        )

    def _register_views(self, names: str) -> tuple[RegisterView, ...]:
        state, unknown = self.cpu(), self.unknown()
        rows = (REGISTERS[name] for name in names.split())
        return tuple(
            RegisterView(r.name, r.bits, None, "unknown")
            if is_unknown(r.name, unknown)
            else RegisterView(r.name, r.bits, r.get(state), flag_names(r, r.get(state)))
            for r in rows
        )

    def control(self) -> tuple[RegisterView, ...]:
        return self._register_views("cr0 cr2 cr3 cr4 cr8 efer")

    def debug_registers(self) -> tuple[RegisterView, ...]:
        return self._register_views("dr0 dr1 dr2 dr3 dr6 dr7")

    def segments(self) -> tuple[SegmentView, ...]:
        from emu.x86.segviews import segment_views

        return segment_views(self.cpu(), self._try_linear, self.subject.unknown())

    def _table(self, base: int, limit: int) -> bytes:
        length = limit + 1
        return self.read_linear(base, min(length, self.readable(base, length)))

    def gdt(self) -> tuple[TableEntryView, ...]:
        self.need("gdtr", "efer")
        state = self.cpu()
        raw = self._table(state.gdtr.base, state.gdtr.limit)
        from emu.x86.descriptors import table_entries

        return table_entries(raw, state.gdtr.base, self._long_mode())

    def ldt(self) -> tuple[TableEntryView, ...]:
        """Empty when LDTR is null or unusable."""
        self.need("ldtr", "efer")
        ldtr = self.cpu().ldtr
        if not ldtr.present or not ldtr.selector & ~3:
            return ()
        from emu.x86.descriptors import table_entries

        return table_entries(self._table(ldtr.base, ldtr.limit), ldtr.base, self._long_mode())

    def idt(self) -> tuple[TableEntryView, ...]:
        """In real mode the IVT, at IDTR's base."""
        state = self.cpu()
        if not state.cr0 & CR0_PE:
            return self.ivt()
        self.need("idtr", "efer")
        from emu.x86.descriptors import idt_entries

        return idt_entries(self._table(state.idtr.base, min(state.idtr.limit, 0xFFF)), self._long_mode())

    def ivt(self) -> tuple[TableEntryView, ...]:
        """256 real-mode vectors: at IDTR's base in real mode, else at linear 0."""
        state = self.cpu()
        if not state.cr0 & CR0_PE:
            self.need("idtr")
        base, limit = (0, 0x3FF) if state.cr0 & CR0_PE else (state.idtr.base, min(state.idtr.limit, 0x3FF))
        from emu.x86.descriptors import ivt_entries

        return ivt_entries(self._table(base, limit))

    def _long_mode(self) -> bool:
        return bool(self.cpu().efer & EFER_LMA)

    def page_walk(self, linear: int) -> PageWalkView:
        self._need_paging(self.cpu())
        return paging.walk(self.cpu(), self._try_physical, linear, PHYSICAL_BITS)

    def pages(self) -> Iterator[Page]:
        """All pages that the page tables map now, see `emu.x86.pagemap`."""
        from emu.x86.pagemap import pages

        self._need_paging(self.cpu())
        return pages(self.cpu(), self._try_physical, PHYSICAL_BITS)

    def disassemble(
        self, linear: int | None = None, count: int = 8, bits: int | None = None
    ) -> tuple[InstructionView, ...]:
        """`count` instructions from `linear` (default: the next one), by CS's own width unless `bits` is given."""
        if bits is None:
            self.need("cs.width")
        if linear is None:
            self.need("cs.base")
        state, here = self.cpu(), self.linear_pc()
        start = state.linear_pc if linear is None else linear
        length = self.readable(start, count * MAX_INSTRUCTION)
        if length == 0:
            raise MemoryUnavailable(start, "no memory behind this address")
        offset = (start - state.cs.base) & (0xFFFFFFFFFFFFFFFF if state.long64 else 0xFFFFFFFF)
        code = self.read_linear(start, length)
        return disasm.decode(code, start, bits or code_bits(state), offset, count, current=here)

    def screen(self) -> ScreenView:
        return self.subject.screen()

    def picture(self) -> PictureView:
        """The display's pixels, in any mode."""
        return self.subject.picture()

    def devices(self) -> tuple[DeviceView, ...]:
        return self.subject.devices()

    def device(self, name: str) -> DeviceView:
        """Raises DebuggerError when the machine has no such device."""
        for view in self.devices():
            if view.name == name:
                return view
        names = " ".join(view.name for view in self.devices())
        raise DebuggerError(f"no device is called {name!r}: there are {names}")
