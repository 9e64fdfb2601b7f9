"""A KVM that may not be used, or is busy, leaves the run to the emulator with a notice; none at all is refused."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable

import pytest

from repl.cli import main
from xenbridge.kvm import abi, probe, vm
from xenbridge.kvm.abi import KvmError

TOUR = ["run", "--until", "exit"]
Say = Callable[[int], None]


@pytest.fixture(params=["never probed", "probed before"])
def closed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Has the device refuse to be opened, with an errno; before the probe, or between it and the run."""
    true = os.open
    if request.param == "never probed":
        probe.host_backend.cache_clear()
        probe.host_costs.cache_clear()
    else:
        try:
            probe.host_rules()
        except KvmError as error:
            pytest.skip(str(error))

    def close(number: int) -> None:
        def refuse(path: str, flags: int, *more: int) -> int:
            if path == abi.DEVICE:
                raise OSError(number, os.strerror(number))
            return true(path, flags, *more)

        monkeypatch.setattr("os.open", refuse)

    return close


@pytest.mark.slow_variants(keep=2)
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "may not be opened by this user"), (errno.EPERM, "may not be opened by this user"),
     (errno.EBUSY, "is busy, another hypervisor has the CPU's virtualisation")],
)  # fmt: skip
def test_the_guest_is_emulated_to_the_same_end_with_one_notice(
    number: int, said: str, closed: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    closed(number)
    assert main([*TOUR, "--hypervisor", "kvm"]) == 1, "the tour's own: it ends by code 0"
    text = capsys.readouterr().err
    assert re.fullmatch(rf"v2e: --hypervisor kvm: /dev/kvm {said}.*; this run goes on in the emulator\n", text), text


def test_where_there_is_none_one_sentence_says_what_to_use(closed: Say, capsys: pytest.CaptureFixture[str]) -> None:
    closed(errno.ENOENT)
    assert main([*TOUR, "--hypervisor", "kvm"]) == 2
    text = capsys.readouterr().err
    assert "/dev/kvm is not there" in text and "--hypervisor model" in text and text.count("\n") == 1


def test_a_device_that_is_no_kvm_leaves_the_run_to_the_emulator_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a container has put another device in its place: Linux answers ENOTTY to KVM's requests."""
    probe.host_backend.cache_clear()
    probe.host_costs.cache_clear()
    true = os.open
    monkeypatch.setattr("os.open", lambda path, *more: true("/dev/null" if path == abi.DEVICE else path, *more))
    assert main([*TOUR, "--hypervisor", "kvm"]) == 1
    text = capsys.readouterr().err
    assert (
        "/dev/kvm does not answer as KVM does" in text and "goes on in the emulator" in text and text.count("\n") == 1
    )


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A KVM that opens and makes no virtual machine: so the kernel answers while another hypervisor has VMX."""
    probe.host_backend.cache_clear()
    probe.host_costs.cache_clear()

    def answer(fd: int, request: str, argument: object = None) -> int:
        if request == "CREATE_VM":
            raise KvmError("KVM_CREATE_VM failed: Device or resource busy", errno.EBUSY)
        raise AssertionError(f"{request} after a refusal")

    monkeypatch.setattr(vm, "ioctl", answer)
    monkeypatch.setattr(abi, "open_device", lambda path=abi.DEVICE: os.open("/dev/null", os.O_RDWR))


def test_a_virtual_machine_that_is_refused_as_busy_is_the_same(busy: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOUR, "--hypervisor", "kvm", "--policy", "learn"]) == 1
    text = capsys.readouterr().err
    assert "is busy, another hypervisor" in text and text.count("\n") == 1


def test_the_run_is_the_one_without_a_hypervisor(closed: Say, capsys: pytest.CaptureFixture[str]) -> None:
    closed(errno.EACCES)
    ends = []
    for options in ([], ["--hypervisor", "kvm", "--policy", "native"]):
        assert main(["run", "--until", "serial:tour: real", *options, "-c", "fingerprint", "-c", "screen"]) == 0
        ends.append(capsys.readouterr().out)
    assert ends[0] == ends[1] and ends[0]


def test_commands_say_what_keeps_it_emulated(closed: Say, capsys: pytest.CaptureFixture[str]) -> None:
    closed(errno.EACCES)
    kvm = ["run", "--until", "serial:tour: real", "--hypervisor", "kvm"]
    assert main([*kvm, "-c", "transitions", "-c", "ledger"]) == 0
    said = capsys.readouterr().out
    assert "kept emulated: /dev/kvm may not be opened by this user" in said and said.count("may not be opened") == 1
    assert main([*kvm, "-c", "why kvm", "-c", "step"]) == 0
    said = capsys.readouterr().out
    assert "may not be opened by this user" in said and "among the next" not in said, "no instruction changes that"
    assert main([*kvm, "-c", "force native"]) == 2
    assert "native execution is refused: /dev/kvm may not be opened" in capsys.readouterr().err


@pytest.mark.slow_variants
def test_what_only_kvm_has_is_refused_and_lockstep_says_with_whom(
    closed: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    closed(errno.EACCES)
    assert main([*TOUR, "--hypervisor", "kvm", "--clock", "host", "--devices-in", "hypervisor"]) == 2
    assert "--devices-in hypervisor: /dev/kvm may not be opened" in capsys.readouterr().err
    assert main([*TOUR, "--hypervisor", "kvm", "--lockstep"]) == 1
    assert "lockstep of unicorn and the emulator in place of kvm: " in capsys.readouterr().err
