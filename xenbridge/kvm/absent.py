"""What stands in for a KVM that there is and that cannot be had now: a vCPU that no state enters, and says why."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from emu.vcpu import Place
from emu.x86.modes import Mode
from emu.x86.state import CpuState
from emu.x86.vmentry import Broken, Rules
from xenbridge.model import ModelVcpu

#: A device that answers so is there: not permitted, the CPU's virtualisation is another hypervisor's, or, as where a
#: container has put something else in its place, it knows no request of KVM's. What runs meanwhile is emulated; where
#: there is none at all `--hypervisor kvm` is a mistake, and is refused.
NOT_NOW: Final = frozenset((errno.EACCES, errno.EPERM, errno.EBUSY, errno.ENOTTY))


class AbsentVcpu(ModelVcpu):
    """The vCPU of `kvm` without KVM: the emulator executes everything. Raises EngineError as the engine does."""

    name = "kvm"
    title = "this host's KVM, which cannot be had"

    def __init__(self, place: Place, why: str) -> None:
        self._why = why

        def check(state: CpuState) -> Iterator[Broken]:
            yield Broken("kvm", why, "Linux's answer when KVM is opened")

        never = dict.fromkeys(Mode, why)
        super().__init__(place, Rules(self.name, self.title, check, of_state=False, never=never))

    def unable(self) -> str:
        """See Vcpu: it keeps nothing."""
        return self._why
