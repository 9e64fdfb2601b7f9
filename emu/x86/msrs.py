"""The model-specific registers of each CPU model: names, values after RESET, and which writes are refused.

Pure data and functions; where a value is kept is the engine's business. Numbers and bits: SDM vol. 4, tables 2-2 and
2-20; MTRRs and PAT: SDM vol. 3A, 12.11 and 12.12; AMD's: AMD64 APM vol. 2, appendix A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

from emu.record import dataclass
from emu.typed import Final
from emu.x86 import cpuid
from emu.x86.cpuid import CpuModel
from emu.x86.state import PAT_RESET

TSC, APIC_BASE, FEATURE_CONTROL, TSC_ADJUST, MISC_ENABLE = 0x10, 0x1B, 0x3A, 0x3B, 0x1A0
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
EFER, STAR, LSTAR, CSTAR, FMASK = (0xC0000080 + n for n in range(5))
FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX = (0xC0000100 + n for n in range(4))
APIC_BASE_RESET: Final = 0xFEE00900  #: at FEE00000h, globally enabled, the boot processor
VARIABLE_RANGES: Final = 8
FIXED_RANGES: Final = (0x250, 0x258, 0x259, *range(0x268, 0x270))

_MASK32: Final = (1 << 32) - 1
_MTRR_TYPES: Final = frozenset((0, 1, 4, 5, 6))  #: UC WC WT WP WB (SDM vol. 3A, table 12-8)
_PAT_TYPES: Final = _MTRR_TYPES | {7}  #: and UC- (table 12-10)
#: WRMSR's check: (value, value held) -> what is kept, or None for #GP(0).
Check = Callable[[int, int], int | None]


@dataclass(frozen=True, slots=True)
class Msr:
    """One register. `write` None: read-only."""

    number: int
    name: str
    reset: int = 0
    write: Check | None = None


def canonical(value: int) -> bool:
    """Bits 63 to 47 are equal (SDM vol. 1, 3.3.7.1); no model here has 57-bit addresses."""
    return value >> 47 in (0, (1 << 17) - 1)


def _bits(allowed: int, value: int, _held: int) -> int | None:
    return None if value & ~allowed else value


def _low32(value: int, _held: int) -> int | None:
    return value & _MASK32


def _canonical(value: int, _held: int) -> int | None:
    return value if canonical(value) else None


def _any(value: int, _held: int) -> int | None:
    return value


def _types(allowed: frozenset[int], value: int, _held: int) -> int | None:
    return value if all(byte in allowed for byte in value.to_bytes(8, "little")) else None


def _default_type(value: int, _held: int) -> int | None:
    """Type, FE (bit 10), E (bit 11); SDM vol. 3A, 12.11.2.1."""
    return value if value & 0xFF in _MTRR_TYPES and not value & ~0xCFF else None


def _physical_base(physical_bits: int, value: int, _held: int) -> int | None:
    """Type in bits 7:0, 11:8 reserved (SDM vol. 3A, figure 12-7)."""
    return value if value & 0xFF in _MTRR_TYPES and not value & 0xF00 and not value >> physical_bits else None


def _physical_mask(physical_bits: int, value: int, _held: int) -> int | None:
    """V is bit 11, what is below it reserved."""
    return value if not value & 0x7FF and not value >> physical_bits else None


def _apic_base(physical_bits: int, value: int, _held: int) -> int | None:
    """BSP (bit 8), EN (bit 11), base; no x2APIC (SDM vol. 3A, 11.4.4)."""
    return value if not value & 0x6FF and not value >> physical_bits else None


def _feature_control(value: int, held: int) -> int | None:
    """Only the lock bit, without VMX and SMX; locked it may not be written (SDM vol. 4, table 2-2, 3Ah)."""
    return None if held & 1 or value & ~1 else value


#: Fast strings (0), automatic thermal control (3), enhanced SpeedStep (16), MONITOR (18). BTS (11) and PEBS (12) are
#: unavailable: both bits are read-only and set.
_MISC_WRITABLE: Final = 1 << 0 | 1 << 3 | 1 << 16 | 1 << 18
_MISC_RESET: Final = 1 << 0 | 1 << 11 | 1 << 12


def _misc_enable(value: int, held: int) -> int | None:
    return value if not (value ^ held) & ~_MISC_WRITABLE else None


def _entries(model: CpuModel) -> Iterator[Msr]:
    edx, width = model.edx1, model.physical_bits
    address: Check = _canonical if model.long_mode else _low32
    if edx & cpuid.TSC:
        # Before the Pentium 4 a write sets the low half and clears the high one (SDM vol. 3B, 18.17.3).
        yield Msr(TSC, "tsc", 0, _low32 if model.family == 6 and not model.long_mode else _any)
    if model.ebx7 & cpuid.TSC_ADJUST:
        yield Msr(TSC_ADJUST, "tsc_adjust", 0, _any)
    if model.family == 5 and edx & cpuid.MCE:
        yield Msr(0x0, "p5_mc_addr")
        yield Msr(0x1, "p5_mc_type")
    if model.family >= 6:
        yield Msr(APIC_BASE, "apic_base", APIC_BASE_RESET, partial(_apic_base, width))
        yield Msr(0x8B, "bios_sign_id", 0, _any if model.intel else None)
    if model.family >= 6 and model.intel:
        yield Msr(0x17, "platform_id")
    if edx & cpuid.MCA:  # no banks
        yield Msr(0x179, "mcg_cap")
        yield Msr(0x17A, "mcg_status", 0, partial(_bits, 7))
    if edx & cpuid.SEP:
        yield Msr(SYSENTER_CS, "sysenter_cs", 0, _low32)
        yield Msr(SYSENTER_ESP, "sysenter_esp", 0, address)
        yield Msr(SYSENTER_EIP, "sysenter_eip", 0, address)
    if edx & cpuid.MTRR:
        yield Msr(0xFE, "mtrrcap", VARIABLE_RANGES | 1 << 8 | 1 << 10)  # fixed ranges, write combining
        for n in range(VARIABLE_RANGES):
            yield Msr(0x200 + 2 * n, f"mtrr_physbase{n}", 0, partial(_physical_base, width))
            yield Msr(0x201 + 2 * n, f"mtrr_physmask{n}", 0, partial(_physical_mask, width))
        for number in FIXED_RANGES:
            yield Msr(number, f"mtrr_fixed_{number:x}", 0, partial(_types, _MTRR_TYPES))
        yield Msr(0x2FF, "mtrr_def_type", 0, _default_type)
    if edx & cpuid.PAT:
        yield Msr(0x277, "pat", PAT_RESET, partial(_types, _PAT_TYPES))
    if model.long_mode and model.intel:
        yield Msr(FEATURE_CONTROL, "feature_control", 0, _feature_control)
        yield Msr(MISC_ENABLE, "misc_enable", _MISC_RESET, _misc_enable)
    if model.vendor == cpuid.AMD:
        yield Msr(0xC0010010, "syscfg", 0, partial(_bits, 0x7F0000))  # bits 22:16
        yield Msr(0xC0010015, "hwcr", 0, partial(_bits, 0x1FFFFFF))  # bits 24:0
    if model.has_efer:
        yield Msr(EFER, "efer", 0, partial(_bits, model.efer_bits | 1 << 10))
    if model.syscall:
        yield Msr(STAR, "star", 0, _any)
    if model.long_mode:
        yield Msr(LSTAR, "lstar", 0, _canonical)
        yield Msr(CSTAR, "cstar", 0, _canonical)
        yield Msr(FMASK, "fmask", 0, partial(_bits, _MASK32))
        yield Msr(FS_BASE, "fs_base", 0, _canonical)
        yield Msr(GS_BASE, "gs_base", 0, _canonical)
        yield Msr(KERNEL_GS_BASE, "kernel_gs_base", 0, _canonical)
    if model.edx8 & cpuid.RDTSCP:
        yield Msr(TSC_AUX, "tsc_aux", 0, partial(_bits, _MASK32))


def msrs_of(model: CpuModel) -> Mapping[int, Msr]:
    """The registers that RDMSR and WRMSR know on `model`; any other number raises #GP(0)."""
    if not model.edx1 & cpuid.MSR:
        return MappingProxyType({})
    return MappingProxyType({msr.number: msr for msr in _entries(model)})
