"""The named bits of flag and control registers, and their words (SDM vol. 1, 3.4.3; vol. 3A, 2.5 and 18.2)."""

from __future__ import annotations

from collections.abc import Iterable

from emu.record import dataclass


@dataclass(frozen=True, slots=True)
class Flag:
    """A named bit or bit field, `low_bit` to `high_bit` inclusive."""

    name: str
    low_bit: int
    high_bit: int

    def value(self, register: int) -> int:
        """The field's value in `register`."""
        return register >> self.low_bit & (1 << self.high_bit - self.low_bit + 1) - 1

    @property
    def mask(self) -> int:
        """The bits of the register that the field covers."""
        return (1 << self.high_bit + 1) - (1 << self.low_bit)


def _flags(text: str) -> tuple[Flag, ...]:
    """The flags that words like PE:0 and IOPL:12-13 describe."""
    result = []
    for word in text.split():
        name, _, place = word.partition(":")
        low, _, high = place.partition("-")
        result.append(Flag(name, int(low), int(high or low)))
    return tuple(result)


#: SDM vol. 1, figure 3-8.
EFLAGS = _flags("CF:0 PF:2 AF:4 ZF:6 SF:7 TF:8 IF:9 DF:10 OF:11 IOPL:12-13 NT:14 RF:16 VM:17 AC:18 VIF:19 VIP:20 ID:21")
#: SDM vol. 3A, 2.5.
CR0 = _flags("PE:0 MP:1 EM:2 TS:3 ET:4 NE:5 WP:16 AM:18 NW:29 CD:30 PG:31")
CR3 = _flags("PWT:3 PCD:4")
CR4 = _flags(
    "VME:0 PVI:1 TSD:2 DE:3 PSE:4 PAE:5 MCE:6 PGE:7 PCE:8 OSFXSR:9 OSXMMEXCPT:10 UMIP:11 LA57:12 VMXE:13 SMXE:14"
    " FSGSBASE:16 PCIDE:17 OSXSAVE:18 KL:19 SMEP:20 SMAP:21 PKE:22 CET:23 PKS:24 UINTR:25"
)
#: SDM vol. 3A, table 2-1; bits 12 to 15 are AMD's (AMD64 APM vol. 2, 3.1.7).
EFER = _flags("SCE:0 LME:8 LMA:10 NXE:11 SVME:12 LMSLE:13 FFXSR:14 TCE:15")
#: SDM vol. 3B, figure 18-1.
DR6 = _flags("B0:0 B1:1 B2:2 B3:3 BD:13 BS:14 BT:15")
DR7 = _flags(
    "L0:0 G0:1 L1:2 G1:3 L2:4 G2:5 L3:6 G3:7 LE:8 GE:9 GD:13"
    " RW0:16-17 LEN0:18-19 RW1:20-21 LEN1:22-23 RW2:24-25 LEN2:26-27 RW3:28-29 LEN3:30-31"
)
#: VMX access rights (SDM vol. 3C, table 25-2).
ACCESS = _flags("type:0-3 S:4 DPL:5-6 P:7 AVL:12 L:13 DB:14 G:15 unusable:16")
#: SDM vol. 3A, figure 11-5 (IA32_APIC_BASE).
APIC_BASE = _flags("BSP:8 EXTD:10 EN:11")
#: SDM vol. 1, 8.1.5, 8.1.3 and 10.2.3.
FCTRL = _flags("IM:0 DM:1 ZM:2 OM:3 UM:4 PM:5 PC:8-9 RC:10-11 X:12")
FSTAT = _flags("IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 SF:6 ES:7 C0:8 C1:9 C2:10 TOP:11-13 C3:14 B:15")
MXCSR = _flags("IE:0 DE:1 ZE:2 OE:3 UE:4 PE:5 DAZ:6 IM:7 DM:8 ZM:9 OM:10 UM:11 PM:12 RC:13-14 FZ:15")


def decode(flags: Iterable[Flag], value: int) -> str:
    """The set bits' names in the order of `flags`, fields of several bits as NAME=n where not zero."""
    words = []
    for flag in flags:
        field = flag.value(value)
        if field:
            words.append(flag.name if flag.low_bit == flag.high_bit else f"{flag.name}={field}")
    return " ".join(words)


def mask(flags: Iterable[Flag]) -> int:
    """All bits that `flags` cover."""
    result = 0
    for flag in flags:
        result |= flag.mask
    return result
