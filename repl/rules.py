"""The rule sets by name: the known CPUs', and `kvm`, which is this host's KVM as probed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repl.command import CommandError

if TYPE_CHECKING:
    from emu.x86.vmentry import Rules

KVM = "kvm"


def chosen_rules(name: str) -> Rules:
    """The rules of that name; those of KVM are found out when they are first asked for. Raises CommandError."""
    from emu.x86 import vmentry  # of use to few commands

    if name in vmentry.RULES:
        return vmentry.RULES[name]
    if name != KVM:
        raise CommandError(f"no rules are called {name!r}: use one of {', '.join((*vmentry.RULES, KVM))}")
    from xenbridge.kvm.abi import KvmError
    from xenbridge.kvm.probe import host_rules

    try:
        return host_rules()
    except KvmError as error:
        raise CommandError(str(error)) from error
