"""The options of native execution: whose vCPU there is, which states it enters, by what policy and at what costs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from emu.typed import TYPE_CHECKING
from repl.options import UsageError, choose

if TYPE_CHECKING:
    import argparse

    from emu.keeper import Keeper
    from emu.ledger import Costs
    from emu.transitions import NativeConfig
    from emu.vcpu import MakeVcpu
    from emu.x86.vmentry import Rules

NONE, MODEL, KVM, XEN = "none", "model", "kvm", "xen"
#: Those whose CPU is the host's: it goes by what that can do, and counts no instructions.
HOSTS = (KVM, XEN)
#: What the options are without being given.
EMULATED, AUTO, RULES = "emulated", "auto", "vtx2006"
MEASURED = "measured"  #: of --costs
USERSPACE, HYPERVISOR = "userspace", "hypervisor"
DROPPED, KEPT = "dropped", "kept"  #: of --missed-ticks


def native_config(options: argparse.Namespace, notice: Callable[[str], None]) -> NativeConfig | None:
    """What `--hypervisor` and its companions ask for; None: all is emulated. `notice` is told what a person has to know
    in the middle of a run. Raises UsageError."""
    choose("--hypervisor", options.hypervisor, (NONE, MODEL, KVM, XEN))
    given = [name for name in ("policy", "rules", "costs") if getattr(options, name) is not None]
    if options.hypervisor == NONE and (not given or (given == ["policy"] and options.policy == EMULATED)):
        return None
    # what a run that is emulated starts without
    from emu.ledger import CostError, Costs, parse_costs
    from emu.policies import PolicyError, policy_named
    from emu.transitions import NativeConfig
    from emu.x86 import vmentry

    # A word that is none is said before that it has no use here.
    rules = vmentry.RULES[choose("--rules", options.rules or RULES, tuple(vmentry.RULES))]
    measured = options.costs == MEASURED or (options.costs is None and options.hypervisor == KVM)
    try:
        costs = Costs() if measured or options.costs is None else parse_costs(options.costs)
        policy_named(options.policy or AUTO, costs)
    except PolicyError as error:
        raise UsageError(f"--policy: {error}") from None
    except CostError as error:
        raise UsageError(f"--costs: {error}") from None
    if options.hypervisor == NONE:
        name = next(name for name in given if (name, options.policy) != ("policy", EMULATED))
        value = getattr(options, name)
        raise UsageError(
            f"--{name} {value} needs a CPU to run natively: name one with --hypervisor {MODEL}, {KVM} or {XEN}"
        )
    if options.hypervisor in HOSTS and options.rules is not None:
        raise UsageError(
            f"--rules {options.rules} is for --hypervisor {MODEL}: {options.hypervisor} goes by what the host can do"
        )
    if options.hypervisor == XEN and options.machine != "isapc":
        raise UsageError(
            f"--hypervisor {XEN} needs --machine isapc: a {options.machine} moves memory while the guest runs, and Xen"
            " keeps the MSRs of its local APIC and the address port of its PCI to itself (docs/xen.md)"
        )
    if measured:
        costs = _measured(options) or costs
    policy = policy_named(options.policy or AUTO, costs)
    clock = time.monotonic_ns if options.clock == "host" else None
    inside = options.devices_in == HYPERVISOR
    return NativeConfig(_vcpu(options.hypervisor, rules, notice, inside=inside), policy, costs, clock, notice)


def _measured(options: argparse.Namespace) -> Costs | None:
    """What this host's KVM takes. None: that cannot be known, and was not asked for; whoever builds the machine says
    why. Raises UsageError where it was."""
    from emu.engine import EngineError
    from emu.x86.cpuid import MODELS
    from xenbridge.kvm.abi import KvmError
    from xenbridge.kvm.probe import host_costs

    why = "real mode, in which they are taken, does not run here"
    try:
        if (costs := host_costs(MODELS[options.cpu])) is not None:
            return costs
    except (KvmError, EngineError) as error:
        why = str(error)
    if options.costs == MEASURED:
        raise UsageError(f"--costs {MEASURED}: {why}")
    return None


def keeper_of(options: argparse.Namespace, native: NativeConfig | None) -> Callable[[], Keeper] | None:
    """What makes who has the interrupt controllers and timers, by `--devices-in`; None: the machine's own process.
    `native` is what `native_config` gave. Raises UsageError."""
    place, ticks = choose("--devices-in", options.devices_in, (USERSPACE, HYPERVISOR)), options.missed_ticks
    if ticks is not None:
        choose("--missed-ticks", ticks, (DROPPED, KEPT))
        if place == HYPERVISOR and options.hypervisor == XEN:
            if ticks == DROPPED:
                raise UsageError(
                    f"--missed-ticks {DROPPED} is not for {XEN}: its domain keeps ticks that a guest has missed, as "
                    "Xen would else drop those of each move of the vCPU too"
                )
        elif place == USERSPACE or options.hypervisor != KVM:
            raise UsageError(
                f"--missed-ticks {ticks} is for a PIT that goes by the host's clock: it needs --hypervisor {KVM} "
                f"--devices-in {HYPERVISOR}"
            )
    if place == USERSPACE:
        return None
    if options.hypervisor == NONE:
        raise UsageError(
            f"--devices-in {HYPERVISOR} needs a hypervisor that has them: name one with --hypervisor {MODEL}, {KVM} or "
            f"{XEN}"
        )
    if (name := options.hypervisor) in HOSTS:
        if options.clock != "host":
            raise UsageError(
                f"--devices-in {HYPERVISOR}: the timers of {name} go by the host's clock, so the rest has to: "
                "add --clock host"
            )
        if options.load_xen is not None:
            raise UsageError(f"--load-xen and --devices-in {HYPERVISOR}: {name}'s devices take no state of a domain's")
        if name == KVM:
            return functools.partial(_kept_by_kvm, reinject=ticks == KEPT, wired=_without_apic(options))
        from xenbridge.xen.inside import Joined

        assert native is not None and isinstance(native.make, Joined)
        return native.make.keeper
    from xenbridge.model_devices import ModelDevices

    return ModelDevices


def _without_apic(options: argparse.Namespace) -> bool:
    """The 8259 leads to the CPU with no local APIC between: that of an isapc, and of a CPU that has none."""
    from emu.x86.cpuid import MODELS

    model = MODELS.get(options.cpu)  # one that is not there is refused where the machine is built
    return options.machine == "isapc" or (model is not None and not model.with_apic().has_apic)


def _kept_by_kvm(*, reinject: bool, wired: bool) -> Keeper:
    from emu.engine import EngineError
    from xenbridge.kept import BridgeKeeper
    from xenbridge.kvm.abi import KvmError
    from xenbridge.kvm.bridge import KvmBridge

    try:
        return BridgeKeeper(KvmBridge(reinject=reinject, wired=wired))
    except KvmError as error:
        raise EngineError(f"--devices-in {HYPERVISOR}: {error}") from error


def _vcpu(hypervisor: str, rules: Rules, notice: Callable[[str], None], *, inside: bool) -> MakeVcpu:
    if hypervisor == KVM:
        from xenbridge.kvm.probe import make_kvm

        return make_kvm(notice)
    if hypervisor == XEN and inside:
        from xenbridge.xen.inside import Joined

        return Joined(notice)
    if hypervisor == XEN:
        from xenbridge.xen.native_cpu import make_xen

        return make_xen(notice)
    from xenbridge.model import make_model

    return make_model(rules)
