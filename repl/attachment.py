"""`v2e attach`: prompt, script and gdb on a live domain of Xen: it is read, written, stepped and run."""

from __future__ import annotations

import argparse

from repl.inspection import look
from repl.options import UsageError, parse_count, parse_domain
from repl.outcome import notice
from xenbridge.xen.debugger import DomainDebugger
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.running import PATIENCE, UNANSWERED, RunningDomain
from xenbridge.xen.server import pause_between_accesses


def _paused(libraries: Libraries, number: int, cpu: int) -> RunningDomain:
    domain = Domain(libraries, number)
    if cpu >= (count := domain.vcpus()):
        raise UsageError(f"--vcpu {cpu}: domain {number} has {count}, counted from 0")
    if not pause_between_accesses(domain, PATIENCE):
        notice(UNANSWERED.format(number))
    return RunningDomain(domain, cpu)


def attach(options: argparse.Namespace) -> int:
    """`v2e attach`. Returns the exit status; raises UsageError."""
    number, cpu = parse_domain(options.domain), parse_count("--vcpu", options.vcpu, 0)
    try:
        libraries = Libraries()
    except XenError as error:
        raise UsageError(str(error)) from error
    try:
        live = _paused(libraries, number, cpu)
        try:
            about = f"domain {live.domain.domid} of Xen {libraries.release}, paused"
            return look(options, lambda: DomainDebugger(live, about))
        finally:
            live.close()
            live.domain.resume()
    except XenError as error:
        raise UsageError(str(error)) from error
    finally:
        libraries.close()
