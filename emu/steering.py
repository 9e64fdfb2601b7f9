"""Who executes, for people: what there is to see of it, and how it is forced, forbidden and handed to a policy."""

from __future__ import annotations

from collections.abc import Sequence

from emu.inspector import DebuggerError
from emu.machine import Machine
from emu.typed import TYPE_CHECKING
from emu.views import LedgerView, TransitionsView, TransitionView
from emu.x86.modes import Mode

if TYPE_CHECKING:
    from pathlib import Path

    from emu.learning import Learn
    from emu.policies import Policy
    from emu.transitions import Transitions
    from emu.x86.vmentry import Rules

SHOWN = 8  #: transitions


class Steering:
    """Of one machine. Each method but `engine` raises DebuggerError where no CPU runs natively."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def _transitions(self) -> Transitions:
        transitions = self._machine.transitions
        if transitions is None:
            raise DebuggerError("all is emulated: no CPU runs natively without --hypervisor")
        return transitions

    @property
    def possible(self) -> bool:
        """There is a CPU that runs natively."""
        return self._machine.transitions is not None

    @property
    def native(self) -> bool:
        """The next instruction would be executed natively, if nothing is done before."""
        return self._machine.transitions is not None and self._machine.transitions.stays

    @property
    def rules(self) -> Rules | None:
        """Those of the CPU that runs natively; None where none does."""
        transitions = self._machine.transitions
        return None if transitions is None else transitions.vcpu.rules

    def view(self) -> TransitionsView:
        from emu.learning import Learn
        from emu.vcpu import Straying  # of use here alone

        transitions, vcpu = self._transitions, self._transitions.vcpu
        self._machine.service()
        obstacle = transitions.obstacle() or transitions.out_of_bounds()
        # a hypervisor that is not there is an obstacle, and for `why` a rule that each state breaks: told once
        refused = [b for b in (() if transitions.native else vcpu.refused(transitions.state())) if b.text != obstacle]
        forced = {None: "", True: "native", False: "emulated"}[transitions.forced]
        modes = sorted(mode.label for mode in transitions.forbidden_modes)
        policy = transitions.policy
        return TransitionsView(
            transitions.stays, vcpu.name, vcpu.rules.name, policy.name, policy.shown(), forced,
            (*(f"{first:#x}-{last:#x}" for first, last in transitions.forbidden), *modes),
            obstacle, tuple(map(str, refused)),
            tuple(TransitionView(*move) for move in list(transitions.history)[-SHOWN:]),
            vcpu.strayed if isinstance(vcpu, Straying) else "",
            self.ledger(), transitions.hopping.noticed, policy.sites() if isinstance(policy, Learn) else (),
        )  # fmt: skip

    def ledger(self) -> LedgerView:
        from emu.ledger import NAMES

        ledger = self._transitions.ledger
        costs = ledger.costs
        return LedgerView(
            tuple((cause.value, count) for cause, count in ledger.exits.most_common()),
            ledger.hops_in, ledger.hops_out, ledger.caught, ledger.failed, ledger.emulated, ledger.native,
            ledger.cycles, tuple((name, getattr(costs, name)) for name in NAMES), ledger.inside, ledger.requests,
            self._transitions.vcpu.counts,
        )  # fmt: skip

    def clear_ledger(self) -> None:
        self._transitions.clear_ledger()

    def force(self, native: bool | None) -> None:
        """Raises DebuggerError, with every reason, where native execution cannot be."""
        from emu.transitions import EntryRefused

        transitions = self._transitions
        self._machine.service()
        try:
            transitions.force(native)
        except EntryRefused as refused:
            raise DebuggerError(f"native execution is refused: {refused}") from None

    def emulate(self, count: int) -> None:
        """The next `count` instructions."""
        self._machine.service()
        self._transitions.emulate(count)

    def forbid(self, ranges: Sequence[tuple[int, int]], modes: Sequence[Mode]) -> None:
        """Besides what is forbidden already."""
        transitions = self._transitions
        transitions.forbid((*transitions.forbidden, *ranges), (*transitions.forbidden_modes, *modes))

    def allow_all(self) -> None:
        self._transitions.forbid((), ())

    def set_policy(self, policy: Policy) -> None:
        self._transitions.set_policy(policy)

    def _learner(self) -> Learn:
        from emu.learning import Learn

        policy = self._transitions.policy
        if not isinstance(policy, Learn):
            raise DebuggerError(f"the policy is {policy.name}, which learns nothing: choose it by `policy learn`")
        return policy

    def explain(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Why the policy `learn` dwells as it does at the exit sites whose words contain `text`: lines for each of the
        busiest. Raises DebuggerError when there is none."""
        policy = self._learner()
        told = policy.explain(text, self._transitions.barred, SHOWN)
        if not told:
            known = len(policy.learner.sites)
            raise DebuggerError(f"no exit site of the {known} that are known has {text!r} in it: `policy` shows some")
        return told

    def save_learned(self, path: Path) -> int:
        """Write what the policy `learn` knows; the number of sites. Raises DebuggerError."""
        from emu import learned

        try:
            return learned.save(self._learner().learner, path)
        except learned.LearnedError as error:
            raise DebuggerError(str(error)) from None

    def load_learned(self, path: Path) -> int:
        """Let the policy `learn` know what a file says; the number of sites. Raises DebuggerError."""
        from emu import learned

        try:
            return learned.load(self._learner().learner, path)
        except learned.LearnedError as error:
            raise DebuggerError(str(error)) from None

    def named_policy(self, text: str) -> Policy:
        """The policy of that name. Raises DebuggerError."""
        transitions = self._transitions
        from emu.policies import PolicyError, policy_named

        try:
            return policy_named(text, transitions.ledger.costs)
        except PolicyError as error:
            raise DebuggerError(str(error)) from None
