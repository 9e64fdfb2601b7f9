"""Single steps of a domain's vCPU: RFLAGS.TF, whose exception Xen's monitor takes in place of the guest.

Source: Xen 4.17, arch/x86/hvm/svm/svm.c: behind an instruction that Xen itself executes (IN, MOV to CR0) it puts the
exception into the guest, so those are made by `xenbridge.xen.behalf`. SVM has no monitor trap flag.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from emu.x86 import paging
from emu.x86.state import CR0_PG, RFLAGS_TF, CpuState
from xenbridge.xen import context
from xenbridge.xen.behalf import LONGEST, PHYSICAL_BITS, Behalf, concerns
from xenbridge.xen.channels import Patience
from xenbridge.xen.device_memory import reaches
from xenbridge.xen.domain import Domain
from xenbridge.xen.frames import Frames
from xenbridge.xen.libraries import XenError
from xenbridge.xen.ring import Event, MonitorRing
from xenbridge.xen.wake import Wake, Woken

_FLAGS: Final = context.RIP_OFFSET + 8
#: Seconds a step may take: one that waits for an interrupt's handler takes as long as that.
PATIENCE: Final = 10.0


class Place(NamedTuple):
    """Where the vCPU stands; `linear` is CS base + RIP, wrapped outside 64-bit mode."""

    rip: int
    cs_base: int
    long64: bool = False

    @property
    def linear(self) -> int:
        return self.rip if self.long64 else (self.cs_base + self.rip) & 0xFFFFFFFF


class Stepper:
    """Steps vCPU 0 of one paused domain. Only one may be on a domain: Xen refuses a second monitor.

    While a step is made the guest's own #DB ends it too. A context manager that lets go of the domain."""

    def __init__(self, domain: Domain, wake: Wake | None = None) -> None:
        """What sets `wake` ends a step that waits. Raises XenError, as when somebody else monitors the domain."""
        self._domain, self._wake = domain, wake
        self._behalf = Behalf(domain, wake)
        self._ring = MonitorRing(domain)
        self._owed = False  # TF of a step that was left is in flags that the guest will load yet

    def step(self) -> Place:
        """One instruction of the paused domain, which is paused again behind it; an interrupt's handler that begins
        meanwhile is run to its end. As on any x86, the instruction behind a load of SS belongs to it.

        Raises XenError for an instruction that cannot be stepped, or where none was finished in PATIENCE, and Woken
        where the wake was set before it was done; then the domain is paused where it is."""
        return self.run(lambda place: True)

    def run(self, stop: Callable[[Place], bool], *, patience: float = PATIENCE) -> Place:
        """Steps until `stop` says so of a place. `patience` is for each step, but for HLT, which waits until there is
        an interrupt, or with a wake for half a second: then the next step goes on with it. Raises as `step` does."""
        while True:
            if self._behalf.make():
                if stop(place := self._place()):
                    return place
            elif (met := self._traps(stop, patience)) is not None:
                return met

    def _place(self) -> Place:
        state = context.cpu_state(self._domain.cpu_record())
        return Place(state.rip, state.cs.base, state.long64)

    def _put_flags(self, change: Callable[[int], int]) -> int:
        """Change RFLAGS; what they were."""
        record = bytearray(self._domain.cpu_record())
        flags = int(struct.unpack_from("<Q", record, _FLAGS)[0])
        if (wanted := change(flags)) != flags:
            struct.pack_into("<Q", record, _FLAGS, wanted)
            self._domain.load_cpu_record(bytes(record))
        return flags

    def _traps(self, stop: Callable[[Place], bool], patience: float) -> Place | None:
        """Steps by TF, one at least, until `stop` says so; None: the vCPU stands at an instruction for `behalf`."""
        domain, ring = self._domain, self._ring
        own = self._put_flags(lambda flags: flags | RFLAGS_TF) & RFLAGS_TF
        self._owed = False
        ring.listen(True)
        event, met = None, None
        with Frames(domain) as frames:
            domain.resume()
            try:
                while (event := self._next(patience)) is not None:
                    place = Place(event.rip, event.cs_base, event.long64)
                    if stop(place):
                        met = place
                        break
                    if _is_for_behalf(frames, event, place):
                        break
                    # POPF and IRET load TF as they find it.
                    ring.answer(event, rflags=None if event.rflags & RFLAGS_TF else event.rflags | RFLAGS_TF)
            finally:
                domain.pause()
                if event is None and (event := ring.waiting()) is not None:  # it came while it was being left
                    stop(met := Place(event.rip, event.cs_base, event.long64))
                self._owed = event is None
                if event is not None:
                    ring.answer(event)
                    ring.listen(False)
                self._put_flags(lambda flags: flags & ~RFLAGS_TF | own)
        if self._owed:
            raise Woken
        return met

    def _next(self, patience: float) -> Event | None:
        """The exception of the step that goes on; None: the wake was set."""
        waited = Patience(patience)
        if (event := self._ring.wait(waited, self._wake)) is None and waited.left <= 0:
            why = ": it is paused by somebody else too" if "paused" in self._domain.states() else ""
            raise XenError(f"domain {self._domain.domid} has not come to its next instruction in {patience:.0f} s{why}")
        return event

    @property
    def owes(self) -> bool:
        """A step was left before its exception came: `let_run` has to be there when the guest comes to it."""
        return self._owed

    def let_run(self, wake: Wake, seconds: float) -> None:
        """While the domain runs on: until `wake` is set, at most so long. TF that a step has left behind is taken out
        of the guest's flags when it comes to them; then this ends too."""
        if (event := self._ring.wait(Patience(seconds), wake)) is not None:
            self._owed = False
            self._ring.answer(event, rflags=event.rflags & ~RFLAGS_TF)
            self._ring.listen(False)

    def close(self) -> None:
        """Let go. A domain that is gone is no error."""
        self._ring.close()
        self._behalf.close()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _is_for_behalf(frames: Frames, event: Event, place: Place) -> bool:
    """The next instruction must not be stepped by TF before `Behalf.make` was asked."""
    paged = CpuState(cr0=event.cr0, cr3=event.cr3, cr4=event.cr4, efer=event.efer)

    def translate(linear: int) -> int | None:
        return paging.translate(paged, frames.word, linear, PHYSICAL_BITS) if event.cr0 & CR0_PG else linear

    code = b""
    while len(code) < LONGEST and (physical := translate(place.linear + len(code))) is not None:
        piece = min(LONGEST - len(code), 0x1000 - physical % 0x1000)
        code += (got := frames.read(physical, piece))
        if len(got) < piece:
            break
    if concerns(code, event.long64):
        return True
    if event.long64:
        return False
    found = reaches(
        code,
        event.bits,
        event.stack_bits,
        event.regs,
        event.bases,
        lambda linear, writes: translate(linear),
        frames.readable,
    )
    return found is not None
