"""The CPU models: what CPUID says of each, and which registers' bits follow from that.

The words are those of the chips as QEMU's models of the same names give them, which tests/cpu/test_system.py compares;
with VME, which QEMU does not execute, and without what the CPU of `isapc` does not have: a local APIC (`with_apic` adds
it), RDRAND (its numbers would come from the host) and SVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from emu.record import dataclass, replace
from emu.typed import Final

# CPUID.1:EDX (SDM vol. 2A, table 3-11).
FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, APIC = (1 << n for n in range(10))
SEP, MTRR, PGE, MCA, CMOV, PAT, PSE36 = (1 << n for n in range(11, 18))
CLFSH = 1 << 19
MMX, FXSR, SSE, SSE2 = (1 << n for n in range(23, 27))
# CPUID.1:ECX (table 3-10).
SSE3, MONITOR, SMX, CX16, PCID = 1 << 0, 1 << 3, 1 << 6, 1 << 13, 1 << 17
PCLMULQDQ, SSSE3, SSE41, SSE42, AES = 1 << 1, 1 << 9, 1 << 19, 1 << 20, 1 << 25
X2APIC, MOVBE, POPCNT, TSC_DEADLINE = 1 << 21, 1 << 22, 1 << 23, 1 << 24
XSAVE, RDRAND = 1 << 26, 1 << 30
# CPUID.7.0:EBX, ECX (table 3-8).
FSGSBASE, TSC_ADJUST, SMEP, SMAP = 1 << 0, 1 << 1, 1 << 7, 1 << 20
BMI1, BMI2, ADX = 1 << 3, 1 << 8, 1 << 19
UMIP, PKU, LA57 = 1 << 2, 1 << 3, 1 << 16
# CPUID.80000001h:EDX and ECX; 3DNow!, SVM and SSE4A of AMD (AMD64 APM vol. 3, E.4.2).
SYSCALL, NX, FFXSR, RDTSCP, LM, SVM = 1 << 11, 1 << 20, 1 << 25, 1 << 27, 1 << 29, 1 << 2
SSE4A, PREFETCHW, THREE_D_NOW = 1 << 6, 1 << 8, 1 << 31

AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@dataclass(frozen=True, slots=True)
class CpuModel:
    """One model. `signature` is CPUID.1:EAX, and EDX after RESET; the words are CPUID's, by leaf and register.

    `physical_bits` is the width of its physical addresses."""

    name: str
    vendor: str
    signature: int
    edx1: int
    ecx1: int = 0
    ebx7: int = 0
    ecx7: int = 0
    edx8: int = 0  #: of leaf 80000001h
    ecx8: int = 0
    physical_bits: int = 32

    @property
    def family(self) -> int:
        """Family, the extended one added (SDM vol. 2A, CPUID, figure 3-6)."""
        family = self.signature >> 8 & 0xF
        return family + (self.signature >> 20 & 0xFF if family == 0xF else 0)

    @property
    def intel(self) -> bool:
        return self.vendor == INTEL

    @property
    def long_mode(self) -> bool:
        return bool(self.edx8 & LM)

    @property
    def has_efer(self) -> bool:
        return bool(self.edx8 & (SYSCALL | NX | LM))

    @property
    def syscall(self) -> bool:
        """SYSCALL and SYSRET exist. Intel's bit 11 depends on the mode, and its CPUs with LM have them."""
        return bool(self.edx8 & (SYSCALL | LM))

    @property
    def efer_bits(self) -> int:
        """The bits of EFER that may be written, LMA apart (SDM vol. 3A, table 2-1; AMD64 APM vol. 2, 3.1.7)."""
        bits = ((self.syscall, 0), (self.long_mode, 8), (self.edx8 & NX, 11), (self.edx8 & FFXSR, 14))
        return sum(1 << bit for present, bit in bits if present)

    @property
    def cr4_bits(self) -> int:
        """The bits of CR4 that may be set: each belongs to a feature (SDM vol. 3A, 2.5)."""
        bits = (
            (self.edx1 & VME, 0), (self.edx1 & VME, 1), (self.edx1 & TSC, 2), (self.edx1 & DE, 3), (self.edx1 & PSE, 4),
            (self.edx1 & PAE, 5), (self.edx1 & MCE, 6), (self.edx1 & PGE, 7), (self.rdpmc, 8), (self.edx1 & FXSR, 9),
            (self.edx1 & SSE, 10), (self.ecx7 & UMIP, 11), (self.ecx7 & LA57, 12), (self.ebx7 & FSGSBASE, 16),
            (self.ecx1 & PCID, 17), (self.ecx1 & XSAVE, 18), (self.ebx7 & SMEP, 20), (self.ebx7 & SMAP, 21),
            (self.ecx7 & PKU, 22),
        )  # fmt: skip
        return sum(1 << bit for present, bit in bits if present)

    @property
    def has_apic(self) -> bool:
        """CPUID names a local APIC."""
        return bool(self.edx1 & APIC)

    def with_apic(self) -> CpuModel:
        """The same with its local APIC, which came with the Pentium (SDM vol. 3A, 11.1); "max" has its x2APIC mode and
        TSC-deadline timer too. AMD repeats the bit in leaf 80000001h (APM vol. 3, E.4.2)."""
        if self.family < 5:
            return self
        newest = X2APIC | TSC_DEADLINE if self.edx8 & RDTSCP and self.intel else 0
        return replace(
            self, edx1=self.edx1 | APIC, ecx1=self.ecx1 | newest, edx8=self.edx8 | (0 if self.intel else APIC)
        )

    @property
    def rdpmc(self) -> bool:
        """RDPMC came with the P6 and the Pentium with MMX (SDM vol. 2B, RDPMC)."""
        return bool(self.edx1 & MSR) and (self.family >= 6 or bool(self.edx1 & MMX))


_I486 = FPU | PSE
_PENTIUM = _I486 | VME | DE | TSC | MSR | MCE | CX8 | MMX
_PENTIUM2 = _PENTIUM | PAE | SEP | MTRR | PGE | MCA | CMOV | PAT | PSE36 | FXSR

#: The models by the names of `--cpu`. "max" is everything the engine executes.
MODELS: Final[Mapping[str, CpuModel]] = MappingProxyType(
    {
        model.name: model
        for model in (
            CpuModel("486", INTEL, 0x480, _I486, 1 << 31),
            CpuModel("pentium", INTEL, 0x543, _PENTIUM, 1 << 31),
            CpuModel("pentium2", INTEL, 0x652, _PENTIUM2, 1 << 31, physical_bits=36),
            CpuModel("pentium3", INTEL, 0x673, _PENTIUM2 | SSE, 1 << 31, physical_bits=36),
            CpuModel(
                "qemu64", AMD, 0x663, 0x078BFBFD & ~APIC, 0x80002001, edx8=0x2193FBFD & ~APIC, ecx8=0x5 & ~SVM,
                physical_bits=40,
            ),
            CpuModel(
                "max", INTEL, 0x306C4, 0x078BFBFF & ~APIC, 0xC6D82203 & ~RDRAND, ebx7=0x389, edx8=0x28100800,
                ecx8=0x21, physical_bits=40,
            ),
        )
    }
)  # fmt: skip
DEFAULT_MODEL: Final = "max"
