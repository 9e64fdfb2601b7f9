"""`v2e attach`: prompt, script and gdb on a live domain of Xen, which is paused meanwhile. It is read and written."""

from __future__ import annotations

import argparse

from emu.inspector import DebuggerError
from emu.onlooker import Onlooker
from repl.inspection import look
from repl.options import UsageError, parse_count
from xenbridge.xen.domain import Domain
from xenbridge.xen.libraries import Libraries, XenError
from xenbridge.xen.live import LiveDomain

STAYS = "the domain is paused as long as v2e is attached: it is read and written, and runs on when v2e is left"


class LiveOnlooker(Onlooker):
    """As Onlooker, of a subject that is written."""

    def _begin(self, action: object) -> None:
        if hasattr(action, "close"):
            action.close()
        raise DebuggerError(STAYS)


def _paused(libraries: Libraries, options: argparse.Namespace) -> LiveDomain:
    number = 0 if options.domain == "0" else parse_count("DOMAIN", options.domain)
    cpu = 0 if options.vcpu == "0" else parse_count("--vcpu", options.vcpu)
    domain = Domain(libraries, number)
    if cpu >= (count := domain.vcpus()):
        raise UsageError(f"--vcpu {cpu}: domain {number} has {count}, counted from 0")
    domain.pause()
    return LiveDomain(domain, cpu)


def attach(options: argparse.Namespace) -> int:
    """`v2e attach`. Returns the exit status; raises UsageError."""
    try:
        libraries = Libraries()
    except XenError as error:
        raise UsageError(str(error)) from error
    try:
        live = _paused(libraries, options)
        try:
            about = f"domain {live.domain.domid} of Xen {libraries.release}, paused"
            return look(options, lambda: LiveOnlooker(live, about))
        finally:
            live.domain.resume()
    except XenError as error:
        raise UsageError(str(error)) from error
    finally:
        libraries.close()
