"""The thread that owns a machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from asm import assemble
from emu.debugger import Debugger, DebuggerError, Stop, StopKind
from emu.machine import MachineConfig, build_machine
from emu.stops import BreakKind, Condition
from emu.worker import FIRST_EVALUATED, FIRST_PIECE, Worker, WorkerClosed
from machines import pic, rom

PATIENCE = 60  #: seconds until a test that hangs fails, on a busy host too
LOOP = rom("jmp $")
COUNT = rom("mov cx, 0\nl: inc dword [0x500]\njmp l")


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=COUNT, shadow=False))))
    worker.start()
    yield worker
    worker.close()


def test_a_call_returns_its_value_and_raises_its_error_in_the_caller(worker: Worker) -> None:
    assert worker.call(lambda: 42) == 42
    with pytest.raises(DebuggerError, match="no register is called 'nope'"):
        worker.call(lambda: worker.debugger.read_register("nope"))


def test_an_interrupt_stops_a_running_guest_and_tells_the_listeners(worker: Worker) -> None:
    stops: list[Stop] = []
    worker.add_listener(stops.append)
    worker.resume(worker.debugger.begin_continue)
    assert worker.running
    worker.interrupt()
    stop = worker.wait(PATIENCE)
    assert stop is not None
    assert stop.kind is StopKind.INTERRUPTED
    assert stops == [stop]


def test_a_call_is_served_while_the_guest_runs_and_leaves_it_running(worker: Worker) -> None:
    worker.resume(worker.debugger.begin_continue)
    first = worker.call(lambda: worker.debugger.machine.executor.retired, timeout=PATIENCE)
    time.sleep(0.05)
    second = worker.call(lambda: worker.debugger.machine.executor.retired, timeout=PATIENCE)
    assert worker.running
    assert second > first
    worker.interrupt()
    worker.wait(PATIENCE)


def test_an_interrupt_of_a_stopped_guest_does_not_stop_the_next_run_at_once(worker: Worker) -> None:
    worker.interrupt()
    worker.call(lambda: None)
    worker.resume(lambda: worker.debugger.begin_step(100))
    stop = worker.wait(PATIENCE)
    assert stop is not None
    assert stop.kind is StopKind.STEP


def test_resuming_a_running_guest_is_refused(worker: Worker) -> None:
    worker.resume(worker.debugger.begin_continue)
    with pytest.raises(DebuggerError, match="the guest is running"):
        worker.resume(worker.debugger.begin_continue)
    worker.interrupt()
    worker.wait(PATIENCE)


def test_an_action_that_ends_soon_has_ended_when_resume_returns(worker: Worker) -> None:
    stops: list[Stop] = []
    worker.add_listener(stops.append)
    worker.resume(lambda: worker.debugger.begin_step(3))
    assert not worker.running
    assert [stop.kind for stop in stops] == [StopKind.STEP]
    worker.resume(lambda: worker.debugger.begin_step(FIRST_PIECE + 10))  # the rest is run like any other
    worker.wait(PATIENCE)
    assert [stop.retired for stop in stops] == [3, FIRST_PIECE + 13]


def test_resuming_does_not_wait_for_a_guest_that_sleeps() -> None:
    source = "cli\nmov al, 0xff\nout 0x21, al\nsti\nl: hlt\njmp l"  # halted, and nothing will come
    worker = Worker(
        Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(source), shadow=False))), paced=True
    )
    worker.start()
    worker.resume(worker.debugger.begin_continue)  # would never return from the idle guest
    assert worker.running
    worker.interrupt()
    assert worker.wait(PATIENCE) is not None
    worker.close()


def test_a_reset_by_one_front_end_is_a_stop_for_the_others(worker: Worker) -> None:
    stops: list[Stop] = []
    worker.resume(worker.debugger.begin_continue)
    worker.add_listener(stops.append)
    worker.call(worker.debugger.reset)
    assert worker.wait(PATIENCE) is not None
    assert [s.kind for s in stops] == [StopKind.PAUSED]


def test_a_defect_on_the_machines_thread_is_a_stop_and_not_a_hang(worker: Worker) -> None:
    def broken(*_what: object) -> None:
        raise ZeroDivisionError("boom")

    worker.debugger.machine.ports.trace = broken
    worker.debugger.write_linear(0x600, assemble("bits 16\nout 0x80, al\njmp $"))
    worker.call(lambda: worker.debugger.write_register("cs", 0x60))
    worker.call(lambda: worker.debugger.write_register("ip", 0))
    worker.resume(worker.debugger.begin_continue)
    stop = worker.wait(PATIENCE)
    assert stop is not None
    assert stop.kind is StopKind.FAILURE
    assert "ZeroDivisionError: boom" in stop.text
    assert worker.call(lambda: worker.debugger.cpu().linear_pc) >= 0x600


def test_a_listener_that_raises_does_not_end_the_session(worker: Worker) -> None:
    def broken(_stop: Stop) -> None:
        raise ValueError("no")

    seen: list[Stop] = []
    worker.add_listener(broken)
    worker.add_listener(seen.append)
    worker.resume(worker.debugger.begin_step)
    assert worker.wait(PATIENCE) is not None
    assert worker.call(lambda: 1) == 1
    assert len(seen) == 1


def test_many_threads_can_call_at_once(worker: Worker) -> None:
    worker.resume(worker.debugger.begin_continue)
    seen: list[int] = []

    def ask() -> None:
        for _ in range(20):
            seen.append(worker.call(lambda: worker.debugger.cpu().rip, timeout=PATIENCE))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(seen) == 80
    worker.interrupt()
    worker.wait(PATIENCE)


def test_after_close_a_call_says_so(worker: Worker) -> None:
    worker.close()
    with pytest.raises(WorkerClosed, match="has been closed"):
        worker.call(lambda: None)


def test_closing_stops_a_running_guest() -> None:
    worker = Worker(Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=LOOP, shadow=False))))
    worker.start()
    worker.resume(worker.debugger.begin_continue)
    worker.close()
    assert not worker._thread.is_alive()


def test_a_paced_guest_sleeps_real_time_and_its_virtual_time_is_the_same() -> None:
    # 20 ticks of the PIT's default 18.2 Hz would be 1.1 s; two ticks are enough to see that time passes.
    source = f"""
        {pic()}
        mov word [8*4], tick
        mov word [8*4+2], 0xf000
        mov ax, 0
        mov ss, ax
        mov sp, 0x7000
        mov al, 0x34
        out 0x43, al
        mov al, 0
        out 0x40, al
        out 0x40, al
        sti
        hlt
        hlt
        mov al, 3
        out 0xf4, al
        hlt
    tick:
        mov al, 0x20
        out 0x20, al
        iret
    """
    elapsed, virtual = [], []
    for paced in (False, True):
        worker = Worker(
            Debugger(build_machine(MachineConfig(memory=1 << 20, firmware=rom(source), shadow=False))), paced=paced
        )
        worker.start()
        start = time.monotonic()
        worker.resume(worker.debugger.begin_continue)
        stop = worker.wait(PATIENCE)
        elapsed.append(time.monotonic() - start)
        assert stop is not None
        assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 3)
        virtual.append(worker.debugger.machine.clock.now)
        worker.close()
    assert virtual[0] == virtual[1]
    assert elapsed[1] >= 0.9 * virtual[1] / 1e9


def _evaluating(worker: Worker, evaluated: Callable[[], bool]) -> None:
    """A breakpoint in the loop, with a condition."""
    debugger = worker.debugger
    worker.call(lambda: debugger.machine.run(20))
    worker.call(debugger.forget)
    at = worker.call(debugger.linear_pc)
    assert at is not None
    worker.call(lambda: debugger.add_breakpoint(BreakKind.EXECUTE, at, condition=Condition("slow", evaluated)))


def test_conditions_are_evaluated_only_a_few_times_before_others_are_heard(worker: Worker) -> None:
    count = 0

    def holds() -> bool:
        nonlocal count
        count += 1
        return False

    _evaluating(worker, holds)
    # The same thread asks, so that what it sees is behind the first piece and before the next.
    assert worker.call(lambda: (worker.resume(worker.debugger.begin_continue), count)[1]) <= FIRST_EVALUATED
    worker.interrupt()
    assert worker.wait(PATIENCE) is not None


@pytest.mark.parametrize("action", ["begin_continue", "begin_range"])
def test_who_comes_while_a_condition_is_evaluated_is_heard_before_the_next_one_is(worker: Worker, action: str) -> None:
    asked = threading.Event()
    order: list[str] = []

    def holds() -> bool:
        order.append("evaluated")
        if not asked.is_set() and worker.running:
            asked.set()
            worker.interrupt()
            order.append("asked")
        return False

    _evaluating(worker, holds)
    debugger = worker.debugger
    worker.resume(debugger.begin_continue if action == "begin_continue" else lambda: debugger.begin_range(0, 1 << 32))
    stop = worker.wait(PATIENCE)
    assert stop is not None
    assert stop.kind is StopKind.INTERRUPTED
    assert order[-1] == "asked"


def test_a_run_with_slow_conditions_is_the_same_run(worker: Worker) -> None:
    _evaluating(worker, lambda: worker.debugger.machine.executor.retired >= 5000)
    worker.resume(worker.debugger.begin_continue)
    stop = worker.wait(PATIENCE)
    assert stop is not None
    assert (stop.kind, stop.retired) == (StopKind.BREAKPOINT, 5000)
