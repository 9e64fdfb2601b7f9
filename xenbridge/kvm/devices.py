"""The state of KVM's interrupt controllers and timer as states of the models in emu/devices, to look at.

Layouts: linux/kvm.h (struct kvm_pic_state, kvm_lapic_state, kvm_pit_state2), as in Linux 6.1. Nothing here has side
effects. What the kernel does not keep, as ICW1 or whether a counter has had its first byte, is as it usually is.
"""

from __future__ import annotations

import struct
import time
from typing import Final

from emu.devices import ioapic, lapic, pic8259, pit8254
from emu.devices.lapic_timer import TimerState
from emu.devices.pic8259 import CASCADE
from emu.devices.pic8259_chip import ICW1, ICW1_IC4, ICW4_AEOI, ICW4_SFNM, ICW4_UPM, ChipState
from emu.devices.pit8254 import FREQUENCY, SPEAKER_DATA, TIMER2_GATE, Counter, Port61State, pulses_at
from xenbridge.convert_timers import load_counter
from xenbridge.kvm import abi

#: Base, IOREGSEL, ID, IRR, and the redirection table.
_IOAPIC: Final = struct.Struct("<QIII4x24Q")
_SECOND: Final = 1_000_000_000
_NEVER: Final = 0xFF  #: `mode` of a counter that has had no control word
_WORD: Final = 3  #: RW1 RW0: two bytes
#: `flags` of kvm_pit_state2: the speaker's data bit (KVM_PIT_FLAGS_SPEAKER_DATA_ON).
_SPEAKER_ON: Final = 2
#: Offset in the register page to the field of the state that has the same bits (SDM vol. 3A, table 11-1).
_PLAIN: Final = {0x80: "tpr", 0xD0: "ldr", 0xE0: "dfr", 0xF0: "svr", 0x280: "esr"}
_MASKS: Final = {0x100: "isr", 0x180: "tmr", 0x200: "irr"}


def chip_state(pic: abi.PicState, *, master: bool) -> ChipState:
    """One 8259. Of its inputs the kernel tells the edges that were latched, and the levels as they were seen last."""
    return ChipState(
        inputs=pic.irr | pic.last_irr, edges=pic.irr & ~pic.elcr, isr=pic.isr, imr=pic.imr,
        icw1=ICW1 | ICW1_IC4, icw2=pic.irq_base, icw3=1 << CASCADE if master else CASCADE,
        icw4=ICW4_UPM | (ICW4_AEOI if pic.auto_eoi else 0) | (ICW4_SFNM if pic.special_fully_nested_mode else 0),
        expects=pic.init_state + 1 if pic.init_state else 0, ready=not pic.init_state,
        lowest=pic.priority_add - 1 & 7, read_isr=bool(pic.read_reg_select), poll=bool(pic.poll),
        special_mask=bool(pic.special_mask), rotate_aeoi=bool(pic.rotate_on_auto_eoi), elcr=pic.elcr,
    )  # fmt: skip


def pic_state(master: abi.PicState, slave: abi.PicState) -> pic8259.State:
    """Both, without the lines of a machine."""
    return pic8259.State(chip_state(master, master=True), chip_state(slave, master=False))


def lapic_state(page: bytes, base: int, now: int) -> lapic.State:
    """The register page of the local APIC at `base` (IA32_APIC_BASE). The timer is as of `now`, the machine's ns."""

    def word(at: int) -> int:
        return int.from_bytes(page[at : at + 4], "little")

    state = lapic.State(base, id=word(0x20) >> 24)
    for at, name in _PLAIN.items():
        setattr(state, name, word(at))
    for at, name in _MASKS.items():
        setattr(state, name, sum(word(at + 16 * n) << 32 * n for n in range(8)))
    state.icr = word(0x310) << 32 | word(0x300)
    state.lvt = [word(0x320 + 16 * n) for n in range(6)]
    entry, divide = state.lvt[lapic.TIMER], word(0x3E0) & 0xB
    timer = TimerState(entry >> 17 & 3, bool(entry & lapic.MASKED), divide, word(0x380), now)
    bits = divide & 3 | divide >> 1 & 4
    timer.started = now - (timer.initial - word(0x390)) * (1 << (bits + 1 & 7))
    state.timer = timer
    return state


def ioapic_state(data: bytes) -> ioapic.State:
    """struct kvm_ioapic_state."""
    _, select, number, inputs, *entries = _IOAPIC.unpack_from(data)
    return ioapic.State(select, number, inputs, entries)


def _counter(channel: abi.PitChannelState, index: int, now: int, host: int) -> Counter:
    """`now` is the machine's ns, `host` the same instant on the clock of `count_load_time`."""
    counter = Counter(gate=bool(channel.gate) or index != 2, pulse=pulses_at(now))
    if channel.mode == _NEVER:
        return counter
    rw = channel.rw_mode & 3 or _WORD
    if not channel.count:
        counter.write_control(rw << 4 | (channel.mode & 7) << 1 | channel.bcd & 1)
        return counter
    load_counter(counter, rw, channel.mode & 7, channel.count, bcd=bool(channel.bcd & 1))
    # As if it had been loaded just before, and then carried as far as it has counted.
    counter.pulse -= max(1, (host - channel.count_load_time) * FREQUENCY // _SECOND)
    counter.advance(pulses_at(now))
    return counter


def pit_state(pit: abi.PitState2, now: int) -> tuple[pit8254.State, Port61State]:
    """The 8254 and port 61h at `now`, the machine's ns."""
    host = time.monotonic_ns()
    counters = [_counter(channel, index, now, host) for index, channel in enumerate(pit.channels)]
    port = TIMER2_GATE * bool(pit.channels[2].gate) | SPEAKER_DATA * bool(pit.flags & _SPEAKER_ON)
    return pit8254.State(counters), Port61State(port)
