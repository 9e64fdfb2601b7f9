"""When MOV to CR0, CR3 or CR4 raises #GP(0) instead of writing (SDM vol. 2B, MOV to control registers)."""

from __future__ import annotations

from collections.abc import Callable

from emu.record import dataclass
from emu.typed import Final
from emu.x86.cpuid import CpuModel
from emu.x86.state import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME

CR0_NW, CR0_CD = 1 << 29, 1 << 30
CR4_PSE, CR4_PGE, CR4_SMEP = 1 << 4, 1 << 7, 1 << 20
#: What makes MOV load the PDPTEs when it changes and PAE paging is in use behind it (SDM vol. 3A, 4.4.1).
CR0_LOADS: Final = CR0_PG | CR0_NW | CR0_CD
CR4_LOADS: Final = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP
#: Of a PDPTE that is present: bits 2:1 and 8:5, beside those from the physical addresses' width on (table 4-8).
PDPTE_RESERVED: Final = 0x1E6
PDPTES: Final = 4
#: A 16-bit TSS, available or busy (table 3-2).
TSS16: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Before:
    """The CPU before the MOV; `cs_long` is CS.L in its cache, `tss_type` the low four bits of TR's access."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    cs_long: bool
    tss_type: int

    @property
    def long64(self) -> bool:
        """64-bit mode."""
        return self.cs_long and bool(self.efer & EFER_LMA)


Read = Callable[[int, int], bytes | None]


def refuses_cr0(before: Before, value: int, model: CpuModel, read: Read) -> bool:
    """True when MOV of `value`, 64 bits wide in 64-bit mode, to CR0 faults. `read` gives bytes of physical memory."""
    paging = bool(value & CR0_PG)
    if value >> 32 or (paging and not value & CR0_PE) or (value & CR0_NW and not value & CR0_CD):
        return True
    if not paging:
        return before.long64
    long_mode = bool(before.efer & EFER_LMA)
    if not before.cr0 & CR0_PG and before.efer & EFER_LME:
        long_mode = True
        if not before.cr4 & CR4_PAE or before.cs_long or before.tss_type in TSS16:
            return True
    loads = (value ^ before.cr0) & CR0_LOADS and before.cr4 & CR4_PAE and not long_mode
    return bool(loads) and wrong_pdptes(before.cr3, model, read)


def refuses_cr3(before: Before, value: int, model: CpuModel, read: Read) -> bool:
    """The same for CR3, whose bits from the physical addresses' width on are reserved."""
    if before.long64 and value >> model.physical_bits:
        return True
    pae = before.cr0 & CR0_PG and before.cr4 & CR4_PAE and not before.efer & EFER_LMA
    return bool(pae) and wrong_pdptes(value, model, read)


def refuses_cr4(before: Before, value: int, model: CpuModel, read: Read) -> bool:
    """The same for CR4, whose bits belong to features of the model."""
    long_mode = before.efer & EFER_LMA
    if value & ~model.cr4_bits or (long_mode and not value & CR4_PAE):
        return True
    loads = before.cr0 & CR0_PG and value & CR4_PAE and not long_mode and (value ^ before.cr4) & CR4_LOADS
    return bool(loads) and wrong_pdptes(before.cr3, model, read)


def wrong_pdptes(cr3: int, model: CpuModel, read: Read) -> bool:
    """True when one of the four PDPTEs that CR3 points to is present and has a reserved bit set. Memory that is not
    there has none."""
    data = read(cr3 & 0xFFFFFFE0, 8 * PDPTES)
    if data is None:
        return False
    entries = (int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(PDPTES))
    return any(entry & 1 and (entry & PDPTE_RESERVED or entry >> model.physical_bits) for entry in entries)
