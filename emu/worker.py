"""The one thread that owns a machine. Front ends post work to it through a plain queue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Container
from queue import Empty, SimpleQueue

from emu.debugger import Debugger, DebuggerError, Stop
from emu.typed import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from emu.quiet import Quiet

T = TypeVar("T")
#: Instructions between two looks at the queue. A posted request also stops the engine, so this bounds a lost race only.
PIECE = 2_000_000
#: Instructions run within `resume` itself: a step, or a breakpoint close by, costs no change of threads.
FIRST_PIECE = 2_000
#: Conditions and actions that may be evaluated within it: as long as it lasts nobody else is heard.
FIRST_EVALUATED = 4


class WorkerClosed(DebuggerError):
    """The machine's thread has ended."""


class _Job(Generic[T]):
    __slots__ = ("_done", "error", "fn", "value")

    def __init__(self, fn: Callable[[], T]) -> None:
        self.fn = fn
        self.value: T | None = None
        self.error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def run(self) -> None:
        try:
            self.value = self.fn()
        except BaseException as error:  # handed to the caller, who raises it
            self.error = error
        self._done.release()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self._done.release()

    def result(self, timeout: float | None) -> T:
        if not self._done.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("the machine's thread did not answer")
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class Worker:
    """Owns `debugger` from `start` to `close`; every method may be called from any other thread."""

    def __init__(self, debugger: Debugger, *, paced: bool = False) -> None:
        """`paced`: with a person attached, an idle guest sleeps real time (virtual time is the same either way)."""
        self.debugger = debugger
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._held: list[_Job[Any] | None] = []
        self._listeners: list[Callable[[Stop], None]] = []
        self._hear_steps: list[Callable[[Stop], None]] = []  #: those of them that have to hear of each step
        self._stopped = threading.Event()
        self._stopped.set()
        self._closed = False
        self._interrupt = False
        self._brief = False  #: in a first piece, which must not sleep
        self._enough = 0  #: what `Debugger.evaluated` is when a first piece has to end
        self.error: Exception | None = None  #: the last defect of ours that was met on the machine's thread
        self._origin: float | None = None
        self._thread = threading.Thread(target=self._main, name="v2e-machine", daemon=True)
        debugger.poll = self._poll
        if paced:
            debugger.machine.idle = self._sleep

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return not self._stopped.is_set()

    def call(self, fn: Callable[[], T], timeout: float | None = None) -> T:
        """Run `fn` on the machine's thread, between instructions if the guest runs, and return what it returns or
        raise what it raises. Raises TimeoutError after `timeout` seconds, WorkerClosed when the thread has ended."""
        if threading.get_ident() == self._thread.ident:
            return fn()
        job = self._submit(fn)
        return job.result(timeout)

    def wanted(self) -> bool:
        """On the machine's thread: somebody waits for it."""
        return self._interrupt or self._closed or bool(self._held) or not self._queue.empty()

    def post(self, fn: Callable[[], object]) -> None:
        """As `call`, without waiting. What `fn` raises is lost, so it should not."""
        self._submit(fn)

    def _submit(self, fn: Callable[[], T]) -> _Job[T]:
        if self._closed:
            raise WorkerClosed("the machine has been closed")
        job = _Job(fn)
        self._queue.put(job)
        if self._brief or not self._stopped.is_set():
            self.debugger.request_stop()
        return job

    def interrupt(self) -> None:
        """Stop the guest exactly; listeners get an INTERRUPTED stop. Nothing happens when it is stopped already.
        Safe in a signal handler."""
        self._interrupt = True
        self.post(lambda: None)

    def resume(self, begin: Callable[[], None]) -> None:
        """Begin an action (one of the debugger's `begin_*`) and run it; where it ends within a few instructions, the
        listeners have been told when this returns. Raises DebuggerError if one is running."""

        if threading.get_ident() == self._thread.ident:
            self._start(begin)
        else:
            self.call(lambda: self._start(begin))

    def step(self) -> None:
        """As `resume` of one step, in less time where nothing comes before the instruction."""
        if threading.get_ident() != self._thread.ident:
            self.call(self.step)
            return
        self._brief = True
        try:
            stop = self.debugger.single_step()
        except Exception as error:
            stop = self._failed(error)
        finally:
            self._brief = False
        if stop is None:
            self._start(self.debugger.begin_step)
        else:
            self._interrupt = False
            self._tell(stop)

    def begin_quiet(self, *, runs: bool = False, watches: Container[int] = ()) -> Quiet | None:
        """On the machine's thread: see Debugger; `runs` are as `resume` begins them. None, too, where a listener is to
        hear of each step, or somebody waits."""
        if self._hear_steps or self.wanted():
            return None
        return self.debugger.begin_quiet(FIRST_PIECE if runs else 0, watches)

    def _start(self, begin: Callable[[], None]) -> None:
        begin()
        self._interrupt = False
        self._origin = None
        self._brief = True
        self._enough = self.debugger.evaluated + FIRST_EVALUATED
        try:
            stop = self._piece(FIRST_PIECE)
        finally:
            self._brief = False
        # To other threads what ends within the first piece has never run.
        if stop is None:
            self._stopped.clear()
        else:
            self._tell(stop)

    def wait(self, timeout: float | None = None) -> Stop | None:
        """Until the guest is stopped; None if it still runs after `timeout` seconds."""
        return self.debugger.last_stop if self._stopped.wait(timeout) else None

    def add_listener(self, listener: Callable[[Stop], None], *, steps: bool = True) -> None:
        """`listener(stop)` is called on the machine's thread at each stop; with `steps` False not at those behind quiet
        steps and runs (`begin_quiet`)."""
        self._listeners.append(listener)
        if steps:
            self._hear_steps.append(listener)

    def remove_listener(self, listener: Callable[[Stop], None]) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)
            self._hear_steps.remove(listener)

    def close(self) -> None:
        """Stop the guest and end the thread."""
        if self._closed or not self._thread.is_alive():
            self._closed = True
            return
        self._closed = True
        self._queue.put(None)
        self.debugger.request_stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(10)

    # -- the machine's thread

    def _main(self) -> None:
        while self._serve(block=True):
            while self.debugger.running:
                stop = self._piece(PIECE)
                if stop is not None:
                    self._announce(stop)
                elif not self._serve(block=False):
                    self._drain()
                    return
        self._drain()

    def _piece(self, instructions: int) -> Stop | None:
        debugger = self.debugger
        if self._interrupt and debugger.begun_at is None:  # else it has come to an end that is to be told first
            self._interrupt = False
            return debugger.stop()
        try:
            return debugger.pump(instructions)
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> Stop:
        """A defect of ours must leave a session that can still be looked at."""
        self.error = error
        return self.debugger.fail(f"v2e itself failed ({type(error).__name__}: {error}); please report it")

    def _announce(self, stop: Stop) -> None:
        self._stopped.set()
        self._tell(stop)

    def _tell(self, stop: Stop) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(stop)
            except Exception as error:  # one front end's defect must not end the others' session
                self.error = error

    def _poll(self) -> bool:
        """True when the running action should come back to the queue."""
        if self._brief and self.debugger.evaluated >= self._enough:
            return True
        return self.wanted()

    def _serve(self, block: bool) -> bool:
        """Run what is queued (wait for one if `block`); False when the thread is to end."""
        while True:
            if self._held:
                job = self._held.pop(0)
            else:
                try:
                    job = self._queue.get(block)
                except Empty:
                    return True
            if job is None:
                return False
            job.run()
            block = False
            if not self.debugger.running and self.running:
                self._announce(self.debugger.last_stop)  # a job stopped the guest (reset, restore, stop)

    def _drain(self) -> None:
        while True:
            try:
                job = self._queue.get(False)
            except Empty:
                return
            if job is not None:
                job.fail(WorkerClosed("the machine has been closed"))

    def _sleep(self, virtual_ns: int | None) -> bool:
        """Let the host's time pass while the guest idles; False when something was posted meanwhile."""
        if self._brief:
            return False
        timeout: float | None = None
        if virtual_ns is not None:
            now = time.monotonic()
            virtual = self.debugger.machine.clock.now / 1e9
            # A guest that fell behind the host's clock is not made to hurry: the origin moves with it.
            self._origin = max(now - virtual, self._origin) if self._origin is not None else now - virtual
            timeout = self._origin + virtual + virtual_ns / 1e9 - now
            if timeout <= 0.0005:
                return not self._poll()
        if self._held or self._interrupt:
            return False
        try:
            self._held.append(self._queue.get(timeout=timeout))
        except Empty:
            return True
        return False
