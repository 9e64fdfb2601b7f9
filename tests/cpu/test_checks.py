"""One instruction a check: our machine and Bochs print the same exceptions and effects for the images cpu_*.asm.

Bochs is the oracle, as QEMU's TCG checks neither limits nor types. Where the two differ DIFFERENCES says who is right
and by which section of the SDM, and differences.txt what ours prints; an entry that no longer holds fails, and so
does a line of ours that is another.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import oracles
from emu.debugger import Debugger
from emu.engine import CheckLevel
from emu.machine import MachineConfig, build_machine
from emu.stops import Stop, StopKind
from emu.unicorn_helper import HELPER

#: Image -> how many checks it prints.
IMAGES = {
    "cpu_seg32": 465,
    "cpu_real": 133,
    "cpu_stack": 221,
    "cpu_io": 136,
    "cpu_task": 966,
    "cpu_gate": 708,
    "cpu_virtual": 1152,
    "cpu_msr": 107,
    "cpu_debug": 100,
    "cpu_far": 114,
    "cpu_repeat": 59,
    "cpu_resume": 44,
    "cpu_resume32": 3,
    "cpu_fetch": 68,
    "cpu_tsc": 11,
    "cpu_control": 119,
    "cpu_forms": 1537,
    "cpu_divide": 346,
    "cpu_paging": 711,
    "cpu_paging64": 306,
    "cpu_pages": 36,
    "cpu_prefix64": 276,
    "cpu_order": 82,
    "cpu_prefixes": 1799,
    "cpu_pointers": 62,
    "cpu_align": 510,
    "cpu_align64": 330,
    "cpu_wrap": 78,
    "cpu_rex64": 2772,
    "cpu_code64": 259,
    "cpu_bytes64": 79,
    "cpu_branch64": 41,
    "cpu_watch": 130,
    "cpu_watch64": 41,
    "cpu_taskdebug": 39,
    "cpu_vdebug": 52,
}
#: Bochs's model for images of what its own default lacks.
_MODELS = dict.fromkeys(("cpu_rex64", "cpu_code64", "cpu_bytes64"), "corei7_haswell_4770")
#: Images that take seconds in slices.
_LONG = ("cpu_task", "cpu_gate", "cpu_virtual", "cpu_forms", "cpu_prefixes", "cpu_rex64")
#: Much above the longest image's length (5,000,000).
LIMIT = 30_000_000


@dataclass(frozen=True)
class Difference:
    """`tests` of `image` in which Bochs is wrong, or one of two that the SDM allows; `why` says so."""

    image: str
    tests: tuple[str, ...]
    why: str


_PIECES = (
    "a fault is reported with the state before the instruction (vol. 3A, 6.5); Bochs has stored the first part of an "
    "operand that it writes in pieces"
)
_READ_FIRST = (
    "the page's entry has been used, and is accessed (vol. 3A, 4.8), though the write of what was read is refused; "
    "Bochs asks for the write first"
)
#: Ways into a task in cpu_task; an exception's #TS becomes #DF, whoever is looked at first.
_WAYS = ("call", "jmp", "call-gate", "jmp-gate", "int", "iret")
#: Ways through a gate in cpu_gate: bytes of the first part of the frame, and of the whole.
_FRAMES = {"int": (4, 20), "int16": (2, 10), "ud": (4, 20), "call": (4, 24), "call16": (2, 14), "v86": (4, 36)}
#: Of cpu_virtual: all but HLT, which is refused in any case.
_SENSITIVE = (
    *("cli", "sti", "prefix-cli", "pushf", "o32-pushf", "popf-0", "popf-all", "popf-if", "popf-status", "popf-tf"),
    *("o32-popf", "iret-0", "iret-if", "iret-nt", "int", "int-gate", "int3"),
)
#: Kinds of the page in cpu_paging, and checks in which the operand's first part lies before it.
_PAGES = ("absent", "read-only", "supervisor")
_ON_TWO_PAGES = (
    *(f"{name}-{at}" for name in ("fnstenv", "fnsave", "sidt") for at in range(3)),
    *(
        f"{name}-{at}-down"
        for name in ("pushad", "pusha", "enter-frame", "enter-1", "enter-3", "call-far", "call-gate")
        for at in range(3)
    ),
    *("fstp-80-2", "fbstp-2", "sgdt-2", "fstp-80-end", "fxsave", "int-same-ring", "v86-sgdt", "v86-pusha"),
    *("v86-enter", "v86-call-far", "v86-call-far-memory", "v86-call-far-32", "v86-call-far-32-memory"),
    "v86-int-redirected",
)
_ON_TWO_PAGES_64 = (
    *(
        f"{name}-{at}-down"
        for name in ("enter-frame", "enter-1", "enter-3", "call-far", "call-far-64")
        for at in range(3)
    ),
    *("sgdt-0", "sgdt-1", "fstp-80-0", "fstp-80-1", "fxsave", "fxsave-in-xmm-15"),
    "call-gate-same-ring",
)
DIFFERENCES = (
    Difference(
        "cpu_seg32",
        (
            *("sgdt-out", "sidt-out", "o16-sgdt-out", "fstp-80-out", "fbstp-out", "fnstenv-out", "fnstenv-o16-out"),
            *("fnsave-out", "fxsave-out"),
        ),
        _PIECES,
    ),
    Difference("cpu_real", ("sgdt-out",), _PIECES),
    Difference(
        "cpu_stack",
        tuple(
            f"{name}-{where}-under"
            for name in ("pusha", "pushad", "enter-frame", "enter-1", "call-far")
            for where in ("up", "down", "down16")
        )
        + tuple(f"{name}-16-straddles" for name in ("pusha", "pushad", "enter-frame", "enter-1", "call-far")),
        _PIECES,
    ),
    Difference(
        "cpu_stack",
        (
            *(f"push-sreg-{where}" for where in ("up-fits", "up-low", "up-over", "down-fits", "16-low", "16-wraps")),
            *("push-sreg-down16-fits", "pop-sreg-up-over", "pop-sreg-16-straddles", "pop-ss-over"),
        ),
        "with a 32-bit operand size a selector is moved as 32 bits or as 16, of four reserved (vol. 2B, PUSH, POP); we "
        "do the first, Bochs the second",
    ),
    Difference(
        "cpu_stack",
        (
            "enter-16-low",
            "enter-16-wraps",
            "enter-frame-16-low",
            "enter-frame-16-wraps",
            "enter-1-16-low",
            "enter-1-16-wraps",
        ),
        "on a 16-bit stack ENTER loads BP (vol. 2A, ENTER); Bochs loads EBP by the operand size",
    ),
    Difference(
        "cpu_stack",
        ("call-far-16-wraps",),
        "SP wraps from 0 as it does for PUSH and near CALL; Bochs refuses 8 bytes where it lets two PUSHes pass",
    ),
    Difference(
        "cpu_task",
        tuple(f"{way}-{bits}-cs-rpl-3" for way in _WAYS for bits in (32, 16)),
        "a CS whose RPL is not its DPL is found before SS is looked at (vol. 3A, table 7-1, steps 8 and 9); Bochs "
        "looks at SS first",
    ),
    Difference(
        "cpu_gate",
        (
            "v86-down-low",
            *(
                f"{way}-{stack}-{at}"
                for way, (step, end) in _FRAMES.items()
                for stack in ("esp", "sp", "down")
                for at in range(step, end, 2)
            ),
        ),
        _PIECES,
    ),
    Difference(
        "cpu_virtual",
        tuple(f"{setting}-{name}" for setting in ("1D", "1E", "1F", "3E", "3F") for name in _SENSITIVE),
        "VIP is recognised with IOPL below 3 only (vol. 3A, 2.3); Bochs looks at VIF and VIP whatever IOPL is",
    ),
    Difference(
        "cpu_virtual",
        ("1A-int3",),
        "in V86 mode VIF and VIP are CR4.VME's (vol. 3A, 20.3.2), and PVI's outside it (20.4); Bochs takes either",
    ),
    Difference(
        "cpu_msr",
        (
            *("read-unknown-low", "read-unknown-high", "read-unknown-ffffffff", "write-unknown"),
            "write-unknown-high",
        ),
        "an unimplemented MSR raises #GP(0) (vol. 2B, RDMSR, WRMSR); Bochs as configured ignores it",
    ),
    Difference("cpu_paging", tuple(f"{page}-{name}" for page in _PAGES for name in _ON_TWO_PAGES), _PIECES),
    Difference(
        "cpu_paging",
        tuple(
            f"{ring}-{name}" for ring in ("wp-absent", "wp-read-only", "no-wp-absent") for name in ("fstp-80", "sgdt")
        ),
        _PIECES,
    ),
    Difference(
        "cpu_paging",
        (
            *("absent-iret-cs", "supervisor-iret-cs", "absent-fldenv-pointers", "supervisor-fldenv-pointers"),
            *("wp-absent-fldenv", "no-wp-absent-fldenv"),
        ),
        "several items lie on the page: CR2 is the first's, as they are popped (vol. 2A, IRET) and stand; Bochs reads "
        "another one first",
    ),
    Difference("cpu_paging64", tuple(f"{page}-{name}" for page in _PAGES for name in _ON_TWO_PAGES_64), _PIECES),
    Difference(
        "cpu_paging64",
        ("absent-iretq-all", "supervisor-iretq-all"),
        "CR2 is that of RIP, which is popped first (vol. 2A, IRET); Bochs reads RFLAGS first",
    ),
    Difference(
        "cpu_paging64",
        tuple(f"{page}-enter-16-{at}-down" for page in _PAGES for at in range(3)),
        "with an operand size prefix ENTER pushes 16 bits (vol. 2A, ENTER); Bochs pushes 64",
    ),
    Difference(
        "cpu_paging",
        tuple(f"{page}-maskmovdqu-{name}" for page in _PAGES for name in ("first", "none")),
        "whether bytes that the mask does not select fault is left open (vol. 2A, MASKMOVDQU); here they do not",
    ),
    Difference(
        "cpu_paging",
        tuple(f"wp-read-only-{name}" for name in ("add", "cmpxchg-fails", "shl-0")),
        _READ_FIRST,
    ),
    Difference(
        "cpu_align",
        (
            *("sgdt-0", "sgdt-4", "sidt-16-0", "sidt-16-4"),
            *("enter-frame-1", "enter-frame-2", "enter-2-1", "enter-2-2"),
        ),
        _PIECES,
    ),
    Difference("cpu_align64", ("sgdt-0", "sgdt-2", "sgdt-4", "sgdt-8", "sgdt-6-2", "sgdt-6-4"), _PIECES),
    Difference(
        "cpu_align",
        ("fnsave-0", "fnsave-4", "frstor-16-0", "frstor-16-2", "frstor-16-4"),
        "the area of FSAVE and FRSTOR lies at multiples of 4 or 2 (vol. 3A, table 6-7); Bochs wants 8 of its registers",
    ),
    Difference("cpu_pages", ("large-read-only-add", "nx-add"), _READ_FIRST),
    Difference(
        "cpu_order",
        ("v86-popf", "v86-popfd"),
        "in V86 mode with IOPL below 3 POPF is #GP(0) before it pops (vol. 2B, POPF, operation); Bochs pops first",
    ),
    Difference(
        "cpu_control",
        tuple(f"pdpte-bit-{bit}-wp" for bit in (1, 2, 5, 8, 63)),
        "MOV to CR0 loads the PDPTEs when it changes CD, NW or PG (vol. 3A, 4.4.1); Bochs at any MOV with PG set",
    ),
    Difference(
        "cpu_rex64",
        tuple(
            f"{rex}8C{operand}"
            for operand in (*(f"{0xC1 + 8 * reg:02X}" for reg in range(6)), "4308")
            for rex in ("44", "45", "4C", "4F")
        ),
        "REX.R is ignored where ModRM names a segment register (vol. 2A, 2.2.1.2); Bochs takes it for a register that "
        "there is not",
    ),
    Difference(
        "cpu_rex64",
        tuple(f"{rex}0F2A4B08" for rex in ("40", "44", "45", "48", "4C", "4F")),
        "CVTPI2PS of memory makes the registers those of MMX (vol. 2A, CVTPI2PS); in Bochs it does not",
    ),
    Difference(
        "cpu_code64",
        ("ring-3-64-iretd-vm", "iretd-low", "iretd-high", "iretd-high-null", "iretd-low-16"),
        "IRET of 64-bit code pops SS:RSP whatever its operands' size is (vol. 2A, IRET); Bochs only with 64 bits",
    ),
    Difference(
        "cpu_watch",
        ("mov-ss-int",),
        "a data breakpoint that MOV SS has met is reported behind the next instruction (vol. 3A, 6.8.3), INT n at its "
        "handler; Bochs forgets it",
    ),
    Difference(
        "cpu_vdebug",
        tuple(f"int-{what}-{iopl}" for what in ("frame", "table") for iopl in (0, 3)),
        "what a redirected INT reads and stores meets no data breakpoint here, as docs/fidelity.md says",
    ),
    Difference(
        "cpu_taskdebug",
        tuple(f"{name}-{way}" for name in ("t-global", "tf-t") for way in range(3)),
        "of DR6 bits 0 to 3 alone may be cleared by a debug exception (vol. 3B, 17.2.3); Bochs clears BT",
    ),
    Difference(
        "cpu_watch64",
        ("user-syscall-step", "user-sysret-step"),
        "behind SYSCALL and SYSRET TF is looked at as they have left it, as on CPUs of both vendors (target/i386/tcg/"
        "translate.c of QEMU 7.2 on it); Bochs goes by TF before them",
    ),
    Difference(
        "cpu_watch64",
        ("high-not-low", "low-not-high"),
        "breakpoints are compared with linear addresses (vol. 3B, 17.2.1); here with what they lead to, as "
        "docs/fidelity.md says",
    ),
    Difference(
        "cpu_watch64",
        ("step-ist", "watch-ist"),
        "SS stays as it is where the ring does (vol. 3A, 6.14.5); Unicorn makes it null, as docs/fidelity.md says",
    ),
    Difference(
        "cpu_watch",
        ("not-enabled",),
        "DR6 may have the bits of breakpoints that are not enabled or not (vol. 3B, 17.2.3)",
    ),
    Difference(
        "cpu_bytes64",
        ("3dnow-absent", "3dnow-rex"),
        "without 3DNow! 0F 0F is no instruction (vol. 2D, table A-3), which comes before its operand (vol. 3A, 6.9)",
    ),
)


def by_test(lines: tuple[str, ...]) -> dict[str, str]:
    """What each check printed, without RF in pushed flags (tests/emu/test_exceptions.py says why); a name used again
    has its number behind it."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        key, count = name, 1
        while key in found:
            count += 1
            key = f"{name}#{count}"
        found[key] = re.sub(r"/f([0-9A-F]{8})\b", lambda m: f"/f{int(m[1], 16) & ~0x10000:08X}", rest)
    return found


#: Images of what only the C helper meets (docs/fidelity.md).
_WITH_HELPER = frozenset(
    (
        "cpu_task",
        "cpu_gate",
        "cpu_virtual",
        "cpu_far",
        "cpu_fetch",
        "cpu_control",
        "cpu_forms",
        "cpu_paging",
        "cpu_paging64",
        "cpu_order",
        "cpu_prefixes",
        "cpu_pointers",
        "cpu_align",
        "cpu_align64",
        "cpu_wrap",
        "cpu_rex64",
        "cpu_code64",
        "cpu_bytes64",
        "cpu_watch",
        "cpu_watch64",
        "cpu_taskdebug",
        "cpu_vdebug",
    )
)
#: Of cpu_prefix64: where the prefix of ES, CS, SS or DS behind one of FS or GS makes a difference in the portable loop.
_FORMS_OF_FS = (
    *("load", "load-rbx", "load-rbp", "load-rsp", "load-r13", "load-32", "load-32-rbp", "store", "add"),
    *("lods", "push", "bt", "cmpxchg", "aligned", "fild", "jump-table", "call-table"),
)
#: Of the other images, the checks that do.
_CHECKS_WITH_HELPER = {
    "cpu_debug": (
        *("step-pause", "step-pauses", "step-pause-loop", "step-pause-prefixes", "step-mov-ss-pause"),
        *("breakpoint-behind-pause", "step-to-no-breakpoint-0", "step-to-no-breakpoint-at-offset-1"),
        *("step-to-breakpoint-1", "step-to-global-breakpoint-1", "step-to-other-breakpoint-1"),
        "step-to-breakpoint-at-offset-1",
    ),
    "cpu_io": ("v86-pushfd",),
    "cpu_divide": (
        *("test-al-1", "test-ah-1", "test-cl-zero-1", "test-16-1", "test-32-1", "test-32-sign-1", "test-carry-1"),
        *("test-memory-8-1", "test-memory-32-1", "test-memory-sib-1", "test-memory-a16-1", "test-fs-1"),
        *("test-repeated-1", "test-twice-0", "test-twice-1", "idiv-locked", "test-locked-0", "test-locked-memory-0"),
    ),
    "cpu_pages": ("large-absent-add", "large-reserved-add", "pae-absent-add", "pae-no-nxe-add"),
    "cpu_prefix64": (
        *(
            f"unaligned-{prefix}"
            for prefix in ("es", "cs", "ss", "ds", "fs", "gs", "fs-ds", "ds-fs", "gs-es-cs", "fs-gs")
        ),
        *(f"{form}-{prefixes}" for form in _FORMS_OF_FS for prefixes in ("fs-ds", "gs-es-cs")),
        *("load-gs-66-ss", "add-gs-66-ss", "load-fs-w-ds"),
    ),
}


@functools.cache
def run_ours(image: str, size: int | None = None) -> tuple[Stop, tuple[str, ...], object]:
    if image in _WITH_HELPER and isinstance(HELPER, str):
        pytest.skip(HELPER)
    rom = oracles.assemble_image(image)
    config = MachineConfig(memory=16 << 20, firmware=rom, slice=size, checks=CheckLevel.FULL)
    run = Debugger(build_machine(config))
    run.set_limit(LIMIT)
    run.begin_continue()
    stop = run.run()
    lines = tuple(line for line in run.machine.debugcon_text().splitlines() if line)
    result = stop, lines, run.fingerprint()
    run.machine.close()
    return result


@functools.cache
def ours(image: str) -> dict[str, str]:
    return by_test(run_ours(image)[1])


@functools.cache
def bochs(image: str) -> dict[str, str]:
    return by_test(oracles.bochs(oracles.assemble_image(image), cpu=_MODELS.get(image, "bx_generic")).lines)


def listed(image: str) -> set[str]:
    return {test for entry in DIFFERENCES if entry.image == image for test in entry.tests}


def pinned() -> dict[tuple[str, str], str]:
    """By image and check, what ours prints, as differences.txt has it."""
    text = Path(__file__).with_name("differences.txt").read_text("ascii")
    split = [line.split(" ", 2) for line in text.splitlines() if not line.startswith("#")]
    lines = {(image, test): printed for image, test, printed in split}
    assert len(lines) == len(split), "a check has two lines"
    return lines


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_makes_all_its_checks(image: str) -> None:
    names = [name for name in bochs(image) if name != "end"]
    assert len(names) == IMAGES[image]
    stop = run_ours(image)[0]
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text


@pytest.mark.parametrize("image", IMAGES)
def test_ours_does_what_bochs_does(image: str) -> None:
    left, right = ours(image), bochs(image)
    found = {name: (left.get(name), right.get(name)) for name in {**right, **left} if left.get(name) != right.get(name)}
    apart = listed(image).union(_CHECKS_WITH_HELPER.get(image, ()))
    assert {name: pair for name, pair in found.items() if name not in apart} == {}


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(
    ("image", "test"), [(image, test) for image, tests in _CHECKS_WITH_HELPER.items() for test in tests]
)
def test_ours_does_what_bochs_does_with_the_helper(image: str, test: str) -> None:
    assert ours(image)[test] == bochs(image)[test]


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: f"{entry.image}-{entry.tests[0]}")
def test_every_check_of_a_difference_is_one_still(entry: Difference) -> None:
    left, right = ours(entry.image), bochs(entry.image)
    assert [test for test in entry.tests if left[test] == right[test]] == []


@pytest.mark.parametrize("entry", DIFFERENCES, ids=lambda entry: f"{entry.image}-{entry.tests[0]}")
def test_every_check_of_a_difference_prints_what_is_written_of_it(entry: Difference) -> None:
    lines = pinned()
    expected = {test: lines[entry.image, test] for test in entry.tests}
    assert {test: ours(entry.image)[test] for test in entry.tests} == expected


def test_what_is_written_of_differences_is_of_these_alone() -> None:
    assert set(pinned()) == {(entry.image, test) for entry in DIFFERENCES for test in entry.tests}


@pytest.mark.slow_variants(keep=4)
@pytest.mark.parametrize(
    "image", [pytest.param(name, marks=pytest.mark.slow) if name in _LONG else name for name in IMAGES]
)
def test_checks_do_not_depend_on_slices(image: str) -> None:
    stop, lines, fingerprint = run_ours(image)
    assert run_ours(image, 137) == (stop, lines, fingerprint)


@pytest.mark.parametrize("cut", [1, 2])
def test_where_rf_ends_does_not_depend_on_steps(cut: int) -> None:
    assert run_ours("cpu_resume", cut) == run_ours("cpu_resume")


#: Images that the portable loop runs as well, with checks before every instruction, and in which checks it differs.
_PORTABLE = {
    "cpu_divide": tuple(name for name in _CHECKS_WITH_HELPER["cpu_divide"] if "locked" not in name),
    "cpu_order": (
        *("punpckldq-f3", "paddw-f2", "punpcklqdq-mmx", "haddps-none", "movq-none", "cvtpd-none", "movdq2q-memory"),
        "x87-psraw-1",
    ),
    "cpu_fetch": (),
    "cpu_far": (),
    "cpu_branch64": ("call-66",),
    "cpu_gate": (),
    "cpu_task": (),
}


@pytest.mark.parametrize(
    "image",
    [pytest.param(name, marks=pytest.mark.slow) if name in (*_LONG, "cpu_divide") else name for name in _PORTABLE],
)
def test_the_portable_loop_does_it_without_the_helper(image: str) -> None:
    """In an interpreter that has no C helper, which mends functions that both loops call."""
    path = oracles.assemble_image(image)
    done = subprocess.run(
        [sys.executable, "-c", _BARE], input=path, capture_output=True, check=False,
        env=os.environ | {"V2E_ENGINE": "gate", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    found = by_test(tuple(line for line in done.stdout.decode().split("\n") if line))
    lines = pinned()
    expected = {name: lines.get((image, name), printed) for name, printed in bochs(image).items()}
    apart = {name for name, printed in expected.items() if found.get(name) != printed}
    assert apart == set(_PORTABLE[image])


_BARE = """
import sys
from emu.debugger import Debugger
from emu.engine import CheckLevel
from emu.machine import MachineConfig, build_machine

run = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=sys.stdin.buffer.read(), checks=CheckLevel.FULL)))
run.set_limit(10_000_000)
run.begin_continue()
run.run()
print(run.machine.debugcon_text().strip())
"""
