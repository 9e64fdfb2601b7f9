"""The `v2e` command: its sub-commands and options, and what its exit status says.

Nothing heavy is imported before the options are known to be good, so that a wrong word costs nothing and a short run
starts at once. `repl.launch` builds what the options ask for.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence

from emu.typed import TYPE_CHECKING
from repl.options import UsageError
from repl.outcome import STATUS_INTERNAL, STATUS_USAGE
from repl.quick import SCRIPT, Declares, QuickParser

if TYPE_CHECKING:
    import argparse

#: How a write fails where there is no room, or none is allowed.
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_EPILOG = """exit status: odd is the guest's own, (code << 1) | 1 after a write of code to port 0xf4; 0 the event was
reached, the guest powered off, or a person left; 2 wrong usage or an unusable file; 4 the guest died;
6 the budget ran out"""


def _machine_options(parser: Declares) -> None:
    add = parser.add_argument
    add("image", nargs="?", metavar="IMAGE", help="image to boot: a floppy disk, CD or hard disk, by size and "
        "content; without an image, --firmware and --kernel the built-in tour of the CPU modes (`tour`)")  # fmt: skip
    add("--disk", action="append", default=[], metavar="FILE", help="hard disk image; may be repeated")
    add("--floppy", action="append", default=[], metavar="FILE", help="floppy disk image; A:, then B:")
    add("--cdrom", action="append", default=[], metavar="FILE", help="CD image (ISO 9660 or any 2048-byte sectors)")
    add("--virtio", action="append", default=[], metavar="FILE", help="disk image behind a virtio-blk device, with "
        "--machine pc; may be repeated")  # fmt: skip
    add("--boot", metavar="floppy|disk|cdrom", help="what to boot first (default: IMAGE)")
    add("--kernel", metavar="FILE", help="Linux bzImage or multiboot image, entered directly; "
        "with --firmware behind its POST")  # fmt: skip
    add("--initrd", action="append", default=[], metavar="FILE", help="its initial RAM disk; of a multiboot image a "
        "module, and may be repeated")  # fmt: skip
    add("--append", metavar="TEXT", help="its command line")
    add("--firmware", metavar="NAME", help="builtin (the default for an image), seabios or a file")
    add("--option-rom", action="append", default=[], metavar="FILE", help="option ROM; may be repeated")
    add("--machine", default="pc", metavar="NAME", help="pc (i440FX, PIIX3, ACPI; the default) or isapc")
    add("--cpu", default="max", metavar="MODEL", help="486, pentium, pentium2, pentium3, qemu64 or max (default: max)")
    add("--memory", default="64M", metavar="SIZE", help="1M to 3G (default: 64M)")
    add("--cpus", default="1", metavar="N", help="CPUs of the machine: 1, as more are not available in this version")
    add("--hypervisor", default="none", metavar="NAME", help="whose virtual machine runs the guest: none, as the CPU "
        "is emulated (the default), model, the reference hypervisor (docs/transitions.md), kvm, Linux's "
        "(docs/kvm.md), or xen, of which it is a domain (docs/xen.md; in dom0, with --machine isapc)")  # fmt: skip
    add("--policy", metavar="NAME", help="who executes where there is a hypervisor: auto or native, wherever the state "
        "can be entered (the default), emulated, dwell:N, N instructions emulated behind each exit, or learn, so many "
        "as the place has taught (docs/policies.md)")  # fmt: skip
    add("--rules", metavar="NAME", help="which states its CPU can enter: vtx2006 (the default), vtx or svm")
    add("--costs", metavar="LIST", help="cycles in its ledger: exit=N,hop=N,emulated=N,native=N,inside=N,request=N, or "
        "measured, what this host's KVM takes (the default with kvm)")  # fmt: skip
    add("--devices-in", default="userspace", metavar="PLACE", help="who has the interrupt controllers and timers (PIC, "
        "PIT, LAPIC, I/O APIC): userspace, as all other devices (the default), or hypervisor, to which the emulator "
        "submits the guest's accesses (docs/bridge.md)")  # fmt: skip
    add("--missed-ticks", metavar="FATE", help="what becomes of ticks of a PIT in kvm that a late guest has not taken: "
        "dropped, as on a PC (the default), or kept, each to come behind the one before, as in xen always")  # fmt: skip
    add("--clock", default="virtual", metavar="NAME", help="what the guest's time follows: virtual, which is the "
        "instructions run (10 ns each); with --hypervisor kvm or xen also host, the host's clock")  # fmt: skip
    add("--serial", default="null", metavar="TO", help="COM1: null (default), stdio or a file")
    add("--debugcon", default="null", metavar="TO", help="ports 0x402 and 0xe9: null (default), stdio or a file")
    add("--parallel", default="null", metavar="TO", help="printer at LPT1: null (default), stdio or a file")
    add("--write", action="store_true", help="keep the guest's writes in the image files")
    add("--limit", metavar="N", help="instruction budget")
    add("--slice", metavar="N", help="instructions the engine is asked for at a time (changes nothing)")
    add("--checks", default="auto", metavar="auto|full|off", help="which segment checks are made (docs/fidelity.md)")
    add("--load-xen", metavar="FILE", help="continue the domain of a Xen save stream (docs/inspect.md)")
    add("--debug", action="store_true", help="show tracebacks")


def _front_end_options(parser: Declares) -> None:
    """Who looks, and how."""
    add = parser.add_argument
    add("--gdb", metavar="ADDRESS", help="serve gdb at HOST:PORT, PORT, 0 for a free one, a socket path, stdio, or "
        "off (default: 127.0.0.1:1234 at a prompt, off in scripts)")  # fmt: skip
    add("-c", action=SCRIPT, dest="script", default=[], metavar="COMMAND", help="run a command instead "
        "of the prompt; may be repeated")  # fmt: skip
    add("-x", action=SCRIPT, dest="script", default=[], metavar="FILE", help="run the commands in FILE")
    add("--json", action="store_true", help="results as JSON, one document a command")


def _run_options(parser: Declares) -> None:
    """All of `v2e run`."""
    _machine_options(parser)
    add = parser.add_argument
    _front_end_options(parser)
    add("--wait", action="store_true", help="start stopped, until gdb or the prompt continues")
    add("--headless", action="store_true", help="no prompt: run until the guest ends or gdb kills it")
    add("--until", metavar="EVENT", help="text:REGEX, serial:REGEX, debugcon:REGEX, pc:ADDR, insns:N or exit; then "
        "the -c commands run, and it ends")  # fmt: skip
    add("--lockstep", action="store_true", help="a second CPU runs the same instructions on memory of its own, that of "
        "the hypervisor or an emulator in other settings; the first difference ends the run")  # fmt: skip
    add("--screenshot", metavar="FILE", help="write what the display shows at the end to FILE, as PNG")
    add("--save-xen", metavar="FILE", help="write the machine at the end to FILE, as a Xen save stream")


def run_parser() -> argparse.ArgumentParser:
    """The parser of `v2e run`'s options."""
    from repl.arguments import Parser

    parser = Parser(prog="v2e run", description="Boot IMAGE on an emulated PC.", epilog=_EPILOG, allow_abbrev=False)
    _run_options(parser)
    return parser


def run_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of `v2e run` in `arguments`. Raises UsageError."""
    quick = QuickParser()
    _run_options(quick)
    return quick.parse(arguments) or run_parser().parse_args(arguments)


def _gdb_parser() -> argparse.ArgumentParser:
    from repl.arguments import Parser

    parser = Parser(
        prog="v2e gdb", usage="v2e gdb [OPTIONS] [IMAGE] [-- GDB ARGUMENTS]", allow_abbrev=False, epilog=_EPILOG,
        description="The machine of `v2e run`, stopped at reset, with gdb attached and v2e's helper loaded.",
    )  # fmt: skip
    _machine_options(parser)
    parser.add_argument("--gdb", metavar="ADDRESS", help="serve gdb at HOST:PORT, PORT, 0 for a free one, or a socket "
        "path, where others can look on (default: off, a socket of this gdb's own)")  # fmt: skip
    return parser


def _run(arguments: Sequence[str]) -> int:
    options = run_options(arguments)
    from repl.launch import run

    return run(options)


def _gdb(arguments: Sequence[str]) -> int:
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    options = _gdb_parser().parse_args(arguments[:at])
    from repl.gdbsession import run_gdb

    return run_gdb(options, arguments[at + 1 :])


def _look_options(parser: Declares) -> None:
    """What looks at a domain of Xen, in a file or alive, is told."""
    add = parser.add_argument
    add("--vcpu", default="0", metavar="N", help="which of its vCPUs to show (default: 0)")
    _front_end_options(parser)
    add("--headless", action="store_true", help="no prompt: serve gdb until it kills")
    add("--debug", action="store_true", help="show tracebacks")


def _inspect_parser() -> argparse.ArgumentParser:
    from repl.arguments import Parser

    parser = Parser(
        prog="v2e inspect", allow_abbrev=False,
        description="Look at a file that Xen wrote: a save stream (of xl save too), an HVM context, or a core.",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="the file; it is never written")
    _look_options(parser)
    return parser


def _inspect(arguments: Sequence[str]) -> int:
    options = _inspect_parser().parse_args(arguments)
    from repl.inspection import inspect

    return inspect(options)


def _attach_parser() -> argparse.ArgumentParser:
    from repl.arguments import Parser

    parser = Parser(
        prog="v2e attach", allow_abbrev=False,
        description="Debug a live HVM domain of Xen, in dom0; it is paused at first, and runs on when v2e is left.",
    )  # fmt: skip
    parser.add_argument("domain", metavar="DOMAIN", help="its number, as `xl list` shows it")
    _look_options(parser)
    return parser


def _attach(arguments: Sequence[str]) -> int:
    options = _attach_parser().parse_args(arguments)
    from repl.attachment import attach

    return attach(options)


def _doctor(arguments: Sequence[str]) -> int:
    from repl.arguments import Parser

    parser = Parser(prog="v2e doctor", description="What this host offers.", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(arguments)
    from repl.doctor import doctor

    return doctor(options.json)


def _bench(arguments: Sequence[str]) -> int:
    from repl.doctor import bench

    return bench(arguments)


COMMANDS = {
    "run": (_run, "boot an image; prompt, script, or headless"),
    "gdb": (_gdb, "the same with gdb attached and our helper loaded"),
    "inspect": (_inspect, "a file of Xen: save stream, HVM context, core"),
    "attach": (_attach, "a live domain of Xen, in dom0"),
    "doctor": (_doctor, "what this host offers"),
    "bench": (_bench, "the benchmarks"),
}


def _overview() -> str:
    lines = [f"  v2e {name:<8}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["A debugger for what an x86 PC does before an operating system takes over.", "", *lines, "",
                      "`v2e COMMAND --help` says more; `v2e --version` the version."])  # fmt: skip


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("v2e")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _dispatch(arguments: Sequence[str]) -> int:
    names = ", ".join(COMMANDS)
    if not arguments:
        raise UsageError(f"say what to do: {names}; `v2e --help` explains")
    word, rest = arguments[0], arguments[1:]
    if word in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if word in ("-V", "--version"):
        print(f"v2e {_version()}")
        return 0
    if word not in COMMANDS:
        raise UsageError(f"there is no sub-command {word!r}: {names}")
    return COMMANDS[word][0](rest)


def _traceback() -> None:
    from traceback import print_exc

    print_exc()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _prepare_streams() -> None:
    """Make stdout and stderr writable whatever was done to them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller, as `>&-` does
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a screen may hold what the locale cannot say


def _internal_error(error: Exception, debug: bool) -> int:
    if debug:
        _traceback()
    print(
        f"v2e: internal error, please report it: {type(error).__name__}: {_one_line(error)} "
        "(--debug shows the traceback)",
        file=sys.stderr,
    )
    return STATUS_INTERNAL


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `v2e`; returns the exit status. Errors are one line on stderr; with --debug their traceback is too."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    _prepare_streams()
    # Little of what is loaded and built is ever garbage; `repl.rig.Rig` lets it be looked for when it is there.
    gc.disable()
    try:
        status = _dispatch(arguments)
        sys.stdout.flush()
        return status
    except UsageError as error:
        if debug:
            _traceback()
        print(f"v2e: {_one_line(error)}", file=sys.stderr)
        return STATUS_USAGE
    except BrokenPipeError:
        # The reader of stdout has gone, as `head` does: nothing is left to say, nor to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            return _internal_error(error, debug)
        # What is still buffered cannot be written either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"v2e: the output cannot be written: {error.strerror}", file=sys.stderr)
        return STATUS_USAGE
    except KeyboardInterrupt:
        # Die by the signal, so that a shell script that runs us stops too.
        import signal  # 1 ms, whose enumerations it makes

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        return STATUS_INTERNAL
    except Exception as error:
        return _internal_error(error, debug)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
