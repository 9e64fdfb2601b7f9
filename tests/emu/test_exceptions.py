"""Exceptions and interrupts: our machine, QEMU's TCG and Bochs print the same frames for the images exc_*.asm.

An image prints a line a test; a difference is named by image and test. Where the engines are known to differ the
tables below say who is right and by which section of the SDM; each entry is checked to be a difference still.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import pytest

import oracles
from emu.debugger import Debugger
from emu.machine import MachineConfig, build_machine
from emu.stops import Stop, StopKind
from emu.unicorn_helper import HELPER

#: Image, and whether it ends by a triple fault.
IMAGES = {
    "exc_real": False,
    "exc_pm": False,
    "exc_16": False,
    "exc_task": True,
    "exc_task16": False,
    "exc_long": False,
    "exc_ist": False,
}
#: Much above the longest image's length (160,000).
LIMIT = 1_000_000


@dataclass(frozen=True)
class Difference:
    """`tests` of `image` print one thing under QEMU and another under Bochs. Bochs is right unless `why` says
    otherwise. `ours` is whom our machine agrees with; empty: neither."""

    image: str
    tests: tuple[str, ...]
    ours: str
    why: str


#: Of an image what only the C helper does (docs/fidelity.md), which has a test of its own.
WITH_HELPER = {
    "exc_real": ("mov-ss-shadow", "pop-ss-shadow"),
    "exc_pm": ("dr-general-detect", "gp-ltr-null", "v86-pushfd"),
    "exc_long": ("pf-lowest-high",),
    "exc_ist": ("iretq-to", "retf-to", "gate-to", "gate-of-a-fault-to"),
}
#: The same, where QEMU is right.
WITH_HELPER_AS_QEMU = {"exc_ist": ("slot-not-canonical", "slot-at-the-edge", "user-rsp0-not-canonical")}

DIFFERENCES = (
    Difference(
        "exc_real",
        ("mov-ss-shadow", "pop-ss-shadow"),
        "bochs",
        "STI; MOV SS: loading SS inhibits interrupts for the next instruction (vol. 3A, 6.8.3) though STI's own shadow "
        "covers the load already; QEMU does not begin a second shadow within the first",
    ),
    Difference(
        "exc_long",
        ("pf-lowest-high",),
        "bochs",
        "an operand that is read and written is a write's (vol. 3A, 4.7); for QEMU its load faults",
    ),
    Difference("exc_pm", ("gp-ltr-null",), "bochs", "LTR of a null selector is #GP(0) (vol. 2A, LTR)"),
    Difference("exc_pm", ("dr-general-detect",), "bochs", "QEMU has no DR7.GD (vol. 3B, 18.2.4)"),
    Difference(
        "exc_pm",
        ("pf-reserved-bit",),
        "bochs",
        "a #PF code with RSVD set has P set, as the entry is present (vol. 3A, 4.7)",
    ),
    Difference(
        "exc_pm",
        (
            "timer-gate-absent",
            "np-delivering-ud",
            "np-delivering-ud-code-absent",
            "gp-delivering-ud-selector",
            "gp-delivering-ud-null",
            "np-delivering-db",
        ),
        "bochs",
        "a fault in delivering an event that is not INT n, INT3 or INTO sets EXT, bit 0 of the code (vol. 3A, 6.13); "
        "QEMU never does",
    ),
    Difference(
        "exc_task",
        ("ts-new-ds", "np-new-ds"),
        "bochs",
        "a segment of the new task faults in the new task, so the frame holds its EIP (vol. 3A, 6.15, interrupt 10); "
        "QEMU pushes the EIP of the CALL in the old one",
    ),
    Difference(
        "exc_long",
        ("ist1", "ist2", "ist2-code", "timer-ist1"),
        "qemu",
        "SS is made null only when CPL changes (vol. 3A, 6.14.4); QEMU does so for every stack of the IST",
    ),
    Difference(
        "exc_long",
        ("int-gate-absent", "int-gate-16-bit-type", "int-gate-task", "int-beyond-idt", "user-int-dpl-0"),
        "bochs",
        "the index in an IDT code is the vector, scaled by 8 (vol. 3A, 6.13); QEMU scales it by 16",
    ),
    Difference(
        "exc_long",
        ("ss-non-canonical", "user-non-canonical"),
        "bochs",
        "a non-canonical address by way of the stack segment is #SS(0) (vol. 1, 3.3.7.1); QEMU raises #GP(0)",
    ),
    Difference(
        "exc_long",
        ("pf-lowest-high",),
        "qemu",
        "INC of an absent page: a read first (W = 0), or one access that will write (W = 1); vol. 3A, 4.7 leaves it "
        "open",
    ),
    Difference(
        "exc_long",
        ("pf-reserved-bit",),
        "bochs",
        "a #PF code with RSVD set has P set, as the entry is present (vol. 3A, 4.7)",
    ),
)


DIFFERENCES += (
    Difference(
        "exc_ist",
        (
            *(f"slot-{number}" for number in range(1, 8)),
            *("nested", "nested-on-its-own-stack", "nested-three-deep", "nested-fault"),
            *("slot-absent", "double-fault", "double-fault-by-its-stack"),
        ),
        "qemu",
        "SS is made null only when CPL changes (vol. 3A, 6.14.4); QEMU does so for every stack of the IST",
    ),
    Difference(
        "exc_ist",
        (
            *(
                "push",
                "push-imm",
                "push-mem",
                "pushfq",
                "push-fs",
                "pop",
                "pop-mem",
                "popfq",
                "call",
                "call-reg",
                "ret",
            ),
            *("ret-imm", "retf", "iretq", "enter", "leave", "mov-rbp", "mov-rbp-disp", "mov-rbp-index", "mov-rsp"),
            *("mov-rsp-index", "ds-rbp", "inc-rbp", "bt-rbp", "fld-rbp"),
        ),
        "bochs",
        "a non-canonical address by way of the stack segment is #SS(0) (vol. 1, 3.3.7.1); QEMU raises #GP(0)",
    ),
    Difference(
        "exc_ist",
        ("jmp-reg", "jmp-mem", "call-to", "call-to-mem", "ret-to", "ret-imm-to"),
        "bochs",
        "a near branch to a non-canonical address is #GP(0) in the branch (vol. 2A, CALL, JMP; vol. 2B, RET); QEMU has "
        "made it, and cannot fetch",
    ),
    Difference(
        "exc_ist",
        ("iretq-to", "retf-to"),
        "bochs",
        "so are RETF and IRETQ (vol. 2A, IRET; vol. 2B, RET)",
    ),
    Difference(
        "exc_ist",
        ("gate-to", "gate-of-a-fault-to"),
        "bochs",
        "a gate to a non-canonical address is #GP(EXT) of the event (vol. 2A, INT n); QEMU has entered the handler",
    ),
    Difference(
        "exc_ist",
        WITH_HELPER_AS_QEMU["exc_ist"],
        "qemu",
        "a non-canonical RSP of the TSS is #SS of the event (vol. 2A, INT n), with a code of 0, as the new SS is null; "
        "Bochs has the old SS in it",
    ),
)


def by_test(lines: tuple[str, ...]) -> dict[str, str]:
    """What each test printed; a name used again has its number behind it."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        key, count = name, 1
        while key in found:
            count += 1
            key = f"{name}#{count}"
        found[key] = rest
    return found


def without_rf(tests: dict[str, str]) -> dict[str, str]:
    """RF cleared in the pushed flags. For a fault the CPU pushes RF as 1 (vol. 3B, 18.3.1.1), and so do Bochs and our
    machine; QEMU pushes what EFLAGS had."""

    def clear(match: re.Match[str]) -> str:
        return f"/f{int(match[1], 16) & ~0x10000:08X}"

    return {name: re.sub(r"/f([0-9A-F]{8})\b", clear, text) for name, text in tests.items()}


@functools.cache
def run_ours(image: str, size: int | None = None) -> tuple[Stop, tuple[str, ...], object]:
    rom = oracles.assemble_image(image)
    run = Debugger(build_machine(MachineConfig(memory=16 << 20, firmware=rom, slice=size)))
    run.set_limit(LIMIT)
    run.begin_continue()
    stop = run.run()
    lines = tuple(line for line in run.machine.debugcon_text().splitlines() if line)
    result = stop, lines, run.fingerprint()
    run.machine.close()
    return result


def ours(image: str) -> dict[str, str]:
    return by_test(run_ours(image)[1])


def qemu(image: str) -> dict[str, str]:
    return by_test(oracles.qemu(oracles.assemble_image(image)).lines)


def bochs(image: str) -> dict[str, str]:
    return by_test(oracles.bochs(oracles.assemble_image(image)).lines)


def differing(left: dict[str, str], right: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    names = (*left, *(name for name in right if name not in left))
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def listed(image: str, agreeing_with: str | None = None) -> set[str]:
    """Tests of DIFFERENCES, all or those in which ours agrees with `agreeing_with`."""
    return {
        test
        for entry in DIFFERENCES
        if entry.image == image and agreeing_with in (None, entry.ours)
        for test in entry.tests
    }


def unlike_both(image: str) -> set[str]:
    """What is not kept, and what has a test of its own."""
    made = WITH_HELPER_AS_QEMU.get(image, ()) if isinstance(HELPER, str) else ()
    return listed(image, agreeing_with="").union(WITH_HELPER.get(image, ()), made)


@pytest.mark.parametrize("image", IMAGES)
def test_the_oracles_differ_only_where_it_is_explained(image: str) -> None:
    assert set(differing(without_rf(qemu(image)), without_rf(bochs(image)))) == listed(image)


@pytest.mark.parametrize("image", IMAGES)
def test_ours_delivers_as_qemu_does(image: str) -> None:
    found = differing(without_rf(ours(image)), without_rf(qemu(image)))
    expected = listed(image, agreeing_with="bochs") | unlike_both(image)
    assert {name: pair for name, pair in found.items() if name not in expected} == {}


@pytest.mark.parametrize("image", IMAGES)
def test_ours_delivers_as_bochs_does(image: str) -> None:
    found = differing(ours(image), bochs(image))
    expected = listed(image, agreeing_with="qemu") | unlike_both(image)
    assert {name: pair for name, pair in found.items() if name not in expected} == {}


@pytest.mark.skipif(isinstance(HELPER, str), reason=f"made by the C helper: {HELPER}")
@pytest.mark.parametrize(("image", "test"), [(image, test) for image, tests in WITH_HELPER.items() for test in tests])
def test_ours_delivers_as_bochs_does_with_the_helper(image: str, test: str) -> None:
    assert ours(image)[test] == bochs(image)[test]


@pytest.mark.parametrize("image", IMAGES)
def test_ours_ends_as_the_image_does(image: str) -> None:
    stop = run_ours(image)[0]
    if IMAGES[image]:
        assert stop.kind is StopKind.SHUTDOWN, stop.text
        assert [(fault.vector, fault.code) for fault in stop.faults][:2] == [(13, 0x1238), (8, 0)]
        assert oracles.qemu(oracles.assemble_image(image)).shutdown
    else:
        assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text


@pytest.mark.slow_variants(keep=3)
@pytest.mark.parametrize("size", [pytest.param(10, marks=pytest.mark.slow), 137])
@pytest.mark.parametrize("image", IMAGES)
def test_delivery_does_not_depend_on_slices(image: str, size: int) -> None:
    stop, lines, fingerprint = run_ours(image)
    sliced_stop, sliced_lines, sliced_fingerprint = run_ours(image, size)
    assert sliced_lines == lines
    assert (sliced_stop, sliced_fingerprint) == (stop, fingerprint)
