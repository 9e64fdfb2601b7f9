"""Which extension each MMX and SSE instruction, RDMSR, WRMSR and PREFETCHW came with: a CPU model without it answers
with #UD.

The letters of an opcode behind 0Fh stand for its forms without a mandatory prefix, with 66, with F3, with F2:
m MMX, s SSE, 2 SSE2, 3 SSE3, a SSE4A, r MSRs, n the NOPs with ModRM of the P6, w PREFETCHW, - none (another
instruction, or reserved). SDM vol. 2A to 2C, "CPUID Feature Flag" of each instruction; vol. 2D, tables A-3 and A-4;
AMD64 APM vol. 3, appendix A. Of later extensions (0F 38 and 0F 3A) Unicorn asks CPUID; 5 SSSE3, 4 SSE4.1, 6 SSE4.2,
e AES and p PCLMULQDQ are what the C helper has to know of the model before it asks for aligned operands, c POPCNT,
v MOVBE, b BMI1 and B BMI2 before it executes them, o CMOVcc, FCMOVcc and FCOMI, 8 CMPXCHG8B, x CMPXCHG16B, f FXSAVE
and FXRSTOR, l CLFLUSH and A ADCX and ADOX before it asks about their operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from emu.typed import Final
from emu.x86 import cpuid
from emu.x86.cpuid import CpuModel

#: By letter, as bits of a mask.
EXTENSIONS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "-": 0, "m": 1, "s": 2, "2": 4, "3": 8, "r": 16, "a": 32, "n": 64, "w": 128,
        "5": 256, "4": 512, "6": 1024, "e": 2048, "p": 4096, "c": 8192, "v": 16384,
        "b": 1 << 16, "B": 1 << 17,
        "o": 1 << 18, "8": 1 << 19, "x": 1 << 20, "f": 1 << 21, "l": 1 << 22, "A": 1 << 23,
    }
)  # fmt: skip

_RANGES: Final = (
    (0x0D, 0x0D, "wwww"),
    (0x10, 0x11, "s2s2"), (0x12, 0x12, "s233"), (0x13, 0x15, "s2--"), (0x16, 0x16, "s23-"), (0x17, 0x17, "s2--"),
    (0x18, 0x1F, "nnnn"),
    (0x28, 0x29, "s2--"), (0x2A, 0x2A, "s2s2"), (0x2B, 0x2B, "s2aa"), (0x2C, 0x2D, "s2s2"), (0x2E, 0x2F, "s2--"),
    (0x30, 0x30, "rrrr"), (0x32, 0x32, "rrrr"),
    (0x50, 0x50, "s2--"), (0x51, 0x51, "s2s2"), (0x52, 0x53, "s-s-"), (0x54, 0x57, "s2--"), (0x58, 0x59, "s2s2"),
    (0x5A, 0x5A, "2222"), (0x5B, 0x5B, "222-"), (0x5C, 0x5F, "s2s2"),
    (0x60, 0x6B, "m2--"), (0x6C, 0x6D, "-2--"), (0x6E, 0x6E, "m2--"), (0x6F, 0x6F, "m22-"),
    (0x70, 0x70, "s222"), (0x71, 0x76, "m2--"), (0x77, 0x77, "m---"), (0x78, 0x79, "-a-a"),
    (0x7C, 0x7D, "-3-3"), (0x7E, 0x7E, "m22-"),
    (0x7F, 0x7F, "m22-"),
    (0xC2, 0xC2, "s2s2"), (0xC3, 0xC3, "2---"), (0xC4, 0xC6, "s2--"),
    (0xD0, 0xD0, "-3-3"), (0xD1, 0xD3, "m2--"), (0xD4, 0xD4, "22--"), (0xD5, 0xD5, "m2--"), (0xD6, 0xD6, "-222"),
    (0xD7, 0xD7, "s2--"), (0xD8, 0xD9, "m2--"), (0xDA, 0xDA, "s2--"), (0xDB, 0xDD, "m2--"), (0xDE, 0xDE, "s2--"),
    (0xDF, 0xDF, "m2--"),
    (0xE0, 0xE0, "s2--"), (0xE1, 0xE2, "m2--"), (0xE3, 0xE4, "s2--"), (0xE5, 0xE5, "m2--"), (0xE6, 0xE6, "-222"),
    (0xE7, 0xE7, "s2--"), (0xE8, 0xE9, "m2--"), (0xEA, 0xEA, "s2--"), (0xEB, 0xED, "m2--"), (0xEE, 0xEE, "s2--"),
    (0xEF, 0xEF, "m2--"),
    (0xF0, 0xF0, "---3"), (0xF1, 0xF3, "m2--"), (0xF4, 0xF4, "22--"), (0xF5, 0xF5, "m2--"), (0xF6, 0xF7, "s2--"),
    (0xF8, 0xFA, "m2--"), (0xFB, 0xFB, "22--"), (0xFC, 0xFE, "m2--"),
)  # fmt: skip

#: Opcode behind 0Fh -> the four letters.
TWO_BYTE: Final[Mapping[int, str]] = MappingProxyType(
    {opcode: letters for first, last, letters in _RANGES for opcode in range(first, last + 1)}
)
#: 0F AE by ModRM.reg, of memory (LDMXCSR, STMXCSR) and of registers (LFENCE, MFENCE, SFENCE).
FENCES_MEMORY: Final = "--ss----"
FENCES_REGISTER: Final = "-----22s"


#: A bit beside the extensions: near branches of 64-bit code ignore an operand size prefix, as Intel's CPUs do and AMD's
#: do not (SDM vol. 2A, CALL, JMP; AMD64 APM vol. 3, 1.2.2).
IGNORES_66: Final = 1 << 31


def denied(model: CpuModel) -> int:
    """The mask of extensions that `model` lacks, and IGNORES_66."""
    words = (
        ("m", model.edx1 & cpuid.MMX), ("s", model.edx1 & cpuid.SSE), ("2", model.edx1 & cpuid.SSE2),
        ("3", model.ecx1 & cpuid.SSE3), ("r", model.edx1 & cpuid.MSR),
        ("a", model.ecx8 & cpuid.SSE4A), ("n", model.family >= 6),
        ("w", model.ecx8 & cpuid.PREFETCHW or model.edx8 & (cpuid.LM | cpuid.THREE_D_NOW)),
        ("5", model.ecx1 & cpuid.SSSE3), ("4", model.ecx1 & cpuid.SSE41), ("6", model.ecx1 & cpuid.SSE42),
        ("e", model.ecx1 & cpuid.AES), ("p", model.ecx1 & cpuid.PCLMULQDQ), ("c", model.ecx1 & cpuid.POPCNT),
        ("v", model.ecx1 & cpuid.MOVBE), ("b", model.ebx7 & cpuid.BMI1), ("B", model.ebx7 & cpuid.BMI2),
        ("o", model.edx1 & cpuid.CMOV), ("8", model.edx1 & cpuid.CX8), ("x", model.ecx1 & cpuid.CX16),
        ("f", model.edx1 & cpuid.FXSR), ("l", model.edx1 & cpuid.CLFSH), ("A", model.ebx7 & cpuid.ADX),
    )  # fmt: skip
    return sum(EXTENSIONS[letter] for letter, present in words if not present) | (IGNORES_66 if model.intel else 0)
