"""A domain whose vCPU is a machine's native one, and whose interrupt controllers and timers are the machine's.

What the guest does to them natively is between it and Xen; it waits in HLT there, and is woken and interrupted by Xen.
All other accesses come to us, as from any domain of v2e's. Where the emulator goes on, the vCPU is borrowed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from emu.engine import EngineError, ExitReason
from emu.keeper import Keeper
from emu.layout import VGA_WINDOW
from emu.vcpu import Place, Vcpu, VmExit
from emu.x86.state import CpuState
from emu.x86.vmentry import Rules
from xenbridge.bridge import BridgeError
from xenbridge.ioreq import Ioreq, Type, write
from xenbridge.xen.channels import Channels
from xenbridge.xen.context import ContextError
from xenbridge.xen.domain import Domain
from xenbridge.xen.kept import XenKeeper
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.memory import PAGE
from xenbridge.xen.native_cpu import XenVcpu, rules_here
from xenbridge.xen.native_runs import LONGEST, SHORTEST
from xenbridge.xen.parking import BASE, BELL, DOOR, FRAMES

#: The index of the VGA's graphics controller.
_VGA_INDEX: Final = 0x3CE


class Joined:
    """Makes the keeper and the vCPU of one machine: first the one, then the other, which belong to one domain."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        """`notice` is told when the domain vanishes."""
        self._notice = notice
        self._keeper: XenKeeper | None = None

    def keeper(self) -> Keeper:
        """Raises EngineError with a sentence outside of dom0."""
        try:
            libraries = Libraries()
        except XenError as error:
            raise EngineError(f"--hypervisor xen: {error}") from error
        self._keeper = XenKeeper(libraries)
        return self._keeper

    def __call__(self, place: Place) -> Vcpu:
        """The native CPU of the machine. Raises EngineError."""
        assert self._keeper is not None, "a machine makes its keeper first"
        return InsideVcpu(place, rules_here(), self._keeper, self._notice)


class InsideVcpu(XenVcpu):
    """See emu.vcpu.Vcpu. Its registers are in the bridge while that has the vCPU, else in the paused domain."""

    def __init__(self, place: Place, rules: Rules, keeper: XenKeeper, notice: Callable[[str], None]) -> None:
        self._keeper, self._bridge = keeper, keeper.xen
        super().__init__(place, rules, keeper.libraries, notice)

    def _domain_for(self, memory: int) -> Domain:
        self._keeper.domain.allow(memory)
        return self._keeper.domain

    def _prepare(self) -> None:
        try:
            self._uncached_window()
        except BridgeError as error:
            raise XenError(str(error)) from None
        for first, last in ((0, DOOR - 1), (BELL + 1, 0xFFFF)):
            self._server.claim(Type.PIO, first, last)
        self._claim_memory(BASE, PAGE * len(FRAMES))

    def _uncached_window(self) -> None:
        """Xen answers reads of the VGA's window out of a copy of its own from the first write to a register of the
        VGA's on, which the emulator's writes are not in. A write by a string instruction ends that for good
        (stdvga_mem_accept, xen/arch/x86/hvm/stdvga.c of 4.17)."""
        self._bridge.submit_any(write(Type.PIO, _VGA_INDEX, 1, 0))
        self._bridge.copy(VGA_WINDOW)

    # -- state

    def _whole(self) -> CpuState:
        if not self._bridge.borrowed:
            return super()._whole()
        if self._state is None:
            self._state = self._completed(self._bridge.record)
            self._state.halted = self._halted
        return self._state

    def _xcr0(self, state: CpuState) -> int:
        return self._kept.xcr0 if self._bridge.borrowed else super()._xcr0(state)

    def _give(self, state: CpuState) -> None:
        self._borrow()
        self._bridge.load_cpu(state)
        self._kept, self._halted = state, state.halted
        self._moved()

    def _borrow(self) -> None:
        if self._bridge.borrowed:
            return
        self._kept.xcr0 = self._whole().xcr0
        try:
            self._bridge.borrow()
        except BridgeError as error:
            raise XenError(str(error)) from None
        self._moved()

    def _finish_port(self, request: Ioreq) -> None:
        state, value = self._behind(request), self._answer or 0
        self._answer, self._request = None, None
        try:
            self._bridge.borrow_amid(state, lambda: self._server.answer(value))
        except BridgeError as error:
            raise XenError(str(error)) from None
        self._kept, self._halted = state, False
        self._moved()

    @property
    def domain_halts(self) -> bool:
        """Whoever borrows the vCPU wakes it."""
        return False

    @property
    def halted(self) -> bool:
        """See Cpu. In HLT it is the hypervisor that waits."""
        return False

    def lend(self) -> None:
        """See Lending."""
        if self.gone:
            return
        try:
            self._settle()
            self._borrow()
            self._keeper.lent()
        except (XenError, ContextError, BridgeError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        known = self.gone
        super()._lose(error)
        if not known:
            self._keeper.failed(f"the devices in the hypervisor are lost: {error}")

    # -- running

    def _run(self, deadline: int | None) -> VmExit:
        left = LONGEST if deadline is None else min(LONGEST, max(SHORTEST, deadline - self._place.timestamp()))
        if self._bridge.borrowed:
            self._take_back()
        begun = time.monotonic_ns()
        woken = self._stretch(left / 1e9)
        elapsed = time.monotonic_ns() - begun
        if (exit := self._met(elapsed)) is not None:
            return exit
        if woken:
            self._stop = False
        return self._stopped(ExitReason.REQUEST if woken else ExitReason.BUDGET, elapsed)

    def _take_back(self) -> None:
        """The vCPU is the guest's, in the paused domain."""
        try:
            state = self._whole()
            self._keeper.natively()
            self._bridge.give_back(halted=self._halted, paused=True, time_stamp=self._time_stamp(state))
            self._load_xcr0(state)
        except BridgeError as error:
            raise XenError(str(error)) from None
        self._moved()

    def _met(self, elapsed: int) -> VmExit | None:
        if self._answer is not None:  # it stands where it stood
            return None
        if self._request is not None:
            return self._serve(self._request, elapsed)
        states = self.domain.states()
        if "shutdown" in states:
            return self._shut_down(elapsed)
        self._halted = "blocked" in states
        return None

    @property
    def _heard(self) -> tuple[Channels, ...]:
        return (self._channels, *self._bridge.channels)

    def _asked(self, request: Ioreq) -> None:
        if self._bridge.borrowed:  # a request of ours, to what Xen has not got: as where nothing is
            self._server.answer(request.mask if request.reads else 0)
        else:
            super()._asked(request)

    # -- interrupts are Xen's

    def set_interrupt(self, vector: int | None, *, last: bool = False) -> None:
        """See Cpu. While it runs natively nothing is asked for but by Xen."""

    def close(self) -> None:
        """See Cpu. The domain is the keeper's."""
        for step in (self._server.close, self._channels.close, self._memory.close):
            try:
                step()
            except XenError:
                continue
        self._wake.close()
