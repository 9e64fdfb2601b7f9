"""One client's connection as a state machine, without I/O: bytes in, bytes and events out.

State      what the client believes                       goes to
NEW        connected, nothing said yet                    STOPPED at the first packet, when the target is halted
STOPPED    the target stands still, gdb may ask           RUNNING (resume), MONITOR (qRcmd), ENDED (exit, k, D)
RUNNING    it waits for a stop reply or notification      STOPPED (stop), ENDED (guest exited, k, D), MONITOR (non-stop)
MONITOR    it waits for a command's output                STOPPED, RUNNING (finished)
ENDED      there is no guest (extended mode: may restart) STOPPED (vRun, R, vAttach), RUNNING (vAttach, non-stop)
CLOSED     it has gone, or is to go                       -

In RUNNING, questions (memory, registers) are still answered: the target answers between two instructions. In non-stop
mode that goes for memory only. In MONITOR, packets wait. Everything here runs on the thread that owns the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from emu.record import dataclass, replace
from stub import messages
from stub.ahead import MOST, Ahead
from stub.exchange import Exchanged, Known, Talk
from stub.features import supported
from stub.handlers import base, breakpoints, onlooker, resume, trace
from stub.handlers.base import Answer, Context, Gone, Monitor, Running, Silent, Stays, Stopped, error_text, thread_of
from stub.handlers.every import ALL_HANDLERS
from stub.meanings import Meanings
from stub.offers import offers
from stub.packet import PACKET_SIZE, Ack, Damaged, Decoder, Interrupt, Nak, Packet
from stub.refusals import refusal
from stub.remembered import HeldAnswers
from stub.states import BETWEEN, GREETINGS, MOVES, State
from stub.target import SIGNAL_INT, SIGNAL_NONE, Kills, StepsQuietly, StopReport, Target, TargetError, Tells
from stub.voice import HIGH_WATER, Voice

#: Looked up once: an enumeration's members cost several times a global name.
_NEW, _STOPPED, _RUNNING = State.NEW, State.STOPPED, State.RUNNING
#: In these a packet is handled when it comes.
_TALKS = frozenset((_STOPPED, _RUNNING))


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run this monitor command, off the target's thread, and call `Session.command_finished`."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """Send what is left, then close the connection."""


Event = RunCommand | Close


def _ignore(error: Exception) -> None:
    """The default of `on_error`."""


class Session(Voice):
    """The protocol engine of one connection."""

    def __init__(
        self,
        target: Target,
        *,
        has_runner: bool = False,
        compressed: bool = False,
        looks_on: bool = False,
        on_error: Callable[[Exception], None] = _ignore,
        on_output: Callable[[], None] = lambda: None,
        on_left: Callable[[], None] = lambda: None,
    ) -> None:
        """`has_runner`: RunCommand events are served. `compressed`: run-length encode replies (worth it on slow links).
        `looks_on`: another client has the target; this one sees it, and changes and stops nothing.
        `on_error` is told of an exception in a handler, which the client sees as an error reply. `on_output` is told of
        output that no input has called for: a stop reply. `on_left`: what the client has inserted goes."""
        super().__init__(compressed=compressed)
        self.target = target
        self.state = State.NEW
        self._decoder = Decoder()
        self._looks_on = looks_on
        self._on_error = on_error
        self._on_output = on_output
        self._killed = False
        self._interrupts = False  #: Ctrl-C has come, and nothing was there to stop
        self._heard = False  #: the last stop was due to Ctrl-C, and the client has not shown it yet
        self.stalled = False  #: packets may wait until `data_to_send` was called; then `receive_data(b"")` goes on
        self._starting = False  #: within a resume handler
        self._early: StopReport | None = None  #: a stop that came before the resume had returned
        self._handlers = {h.message: h for h in ALL_HANDLERS if h.active(target)}
        self._meanings = Meanings(self._handlers, looks_on=looks_on)
        self._answers = HeldAnswers()
        self._ahead = Ahead()
        self._looked = False  # the packet that is answered changes nothing
        self._stays = False  # its answer is the same behind a step that leaves the mode
        self._quietly = target if offers(target, StepsQuietly) and not looks_on else None
        self._step = b""  #: the packet by which the client has stepped last, as it comes
        self._go = b""  #: that by which it has last let the target run to a watchpoint
        self._steps = self._goes = False  #: that was what has made the target run last
        self._begun = False  #: what `end_quiet` has to end
        self._talk: Talk | None = None
        self._talk_key: object = None  #: what it was made of
        self._on_left = on_left
        self._context = Context(target, self._supported, self._let_go, has_runner)
        self._context.printed = self.printed
        self._context.looks_on = looks_on
        self._behind = State.STOPPED  #: what follows MONITOR
        target.set_listener(self.stopped)
        if offers(target, Tells):
            target.set_teller(lambda sentence: self.printed(sentence + "\n"))

    # -- bytes

    def receive_data(self, data: bytes) -> list[Event]:
        """Bytes from the client (b"" to go on after output has drained). Never raises."""
        events: list[Event] = []
        self.stalled = False
        if self.state in _TALKS and len(self._out) < HIGH_WATER and not self._decoder.midway:
            if (known := self._answers.known.get(data)) is not None:
                self._out += known.framed
                self.answered_again(((data, known.payload),))
                return events
            payload = self._decoder.whole(data)
            if payload is not None:
                self._packet(payload, events, data)
                return events
        self._answers.forget()
        self._decoder.receive_data(data)
        while self.state not in (State.CLOSED, State.MONITOR):
            if len(self._out) >= HIGH_WATER:
                self.stalled = True
                break
            event = self._decoder.next_event()
            if event is None:
                break
            match event:
                case Packet(payload):
                    self._packet(payload, events)
                case Interrupt():
                    self._interrupt()
                case Nak():
                    if not self._context.no_ack:
                        self._out += self._last
                case Damaged(why):
                    self._damaged(why)
                case Ack():
                    pass
        return events

    def hold(self, held: bool) -> None:
        """True: until this is called with False, nothing but this session does anything to the target. What it has
        been asked is then looked up once."""
        self._answers.hold(held)

    @property
    def held(self) -> Mapping[bytes, Known]:
        """What has been asked and is answered alike for now (see `hold`), by the packets as they come. Whoever answers
        one with it, when nothing else waits to be sent, says so (`answered_again`). Nothing behind a part of a packet,
        which what comes next ends or cuts off."""
        return {} if self._decoder.midway else self._answers.known

    def answered_again(self, answered: Sequence[tuple[bytes, bytes]]) -> None:
        """These packets were answered without this session, by these payloads."""
        note, asked, known = self._log.again, self._answers.asked, self._answers.known
        if answered:
            self._context.wrote = -1
        for packet, payload in answered:
            note(packet, payload)
            if packet in known:  # else C has done more than to look it up
                asked[packet] = None

    def begin_quiet(self) -> Talk | None:
        """What C may answer besides `held`, until `end_quiet`; meanwhile nothing is asked here. None: nothing."""
        context, quietly = self._context, self._quietly
        if quietly is None or self.state is not _STOPPED or self._interrupts or self._heard or self._compressed:
            return None
        if not self._answers.held or context.frame is not None or context.non_stop or not context.no_ack:
            return None
        if context.halted or self._decoder.midway:
            return None  # whether more than greetings have come is seen here, and so is what a packet's rest ends
        # A client that has let the guest run is not about to step; to be ready for that takes its time.
        quiet = quietly.begin_quiet(runs=self._goes) if self._steps or self._goes else None
        self._begun = quiet is not None
        if quiet is None and (quiet := quietly.quiet_looks()) is None:
            return None
        self._answers.settle(quiet.moded != 0)
        # What cannot be stepped now is handed back: the talk is the same.
        told = context.fetched and (self._step or self._go)
        places = quietly.brief_places(context.layout()) if told else None
        step, go, watches = self._step, self._go if self._goes else b"", quietly.quiet_watches() if self._goes else ()
        gathered = context.gathered
        key = places, step, go, not context.physical, breakpoints.watches(context), watches, gathered, context.heading
        if key != self._talk_key:
            self._talk_key = key
            reply, pieces = resume.step_reply(context, places) if places else (b"", ())
            if not places:
                step = go = b""
            toggles = breakpoints.toggles(key[4])
            same, spans = (b"", ()) if gathered is None else (gathered.packet, gathered.spans)
            watched = resume.watched(watches)
            self._talk = Talk(quiet, step, reply, pieces, key[3], toggles, go, watched, same, spans)
        return self._talk

    def end_quiet(self, exchanged: Exchanged) -> None:
        """This came of it. With `begun` its `data` are to be received next."""
        assert self._quietly is not None and self._talk is not None
        if self._begun:
            self._begun = False
            self._quietly.end_quiet(exchanged.begun)
        self.answered_again(exchanged.answered)
        for number in exchanged.out:
            self._answer(self._talk.toggles[number][0][1:-3])  # it has its answer already
        if exchanged.written:
            self._answers.forget()
        if exchanged.stepped or exchanged.met or exchanged.written:
            self._context.wrote = -1
        if exchanged.stepped or exchanged.met:
            self._answers.stepped(self._talk.quiet.moded != 0)
            self._ahead.lost()

    def look_ahead(self, *, talks: bool = False) -> None:
        """The client has its answer, and nobody waits. Where that was a stop, look up what it asked at the last one.
        `talks`: what `begin_quiet` gives is of use."""
        context, answers = self._context, self._answers
        if not self._ahead.due or self.state is not _STOPPED or self._interrupts or self._heard:
            return
        if not answers.held or context.frame is not None or not context.no_ack:
            return
        asked, answers.asked = answers.asked, {}
        if talks and self._talk is not None and self._talk.looks and self._talk.quiet.looks:
            self._ahead.lost()  # C looks when it is asked
            for packet in list(asked)[:MOST]:
                meaning = self._meanings.of(packet[1:-3])
                if not (meaning.reads or meaning.stays):
                    self._keep_ahead(packet)
            return
        blocks, others = self._ahead.guess(asked, self._meanings, context.description if context.fetched else None)
        whole = b""
        for packet, part in blocks:
            if not whole:
                whole = self._keep_ahead(packet)
                if len(whole) != part.stop or whole[:1] == b"E":
                    whole = b""  # all of it cannot be read
            else:
                answers.keep(packet, whole[part], self._framed(whole[part]), ahead=True)
        for packet in others:
            self._keep_ahead(packet)

    def _keep_ahead(self, packet: bytes) -> bytes:
        """Answer a look before it is asked for."""
        if type(self._meanings.of(packet[1:-3]).message) is messages.GatherMemory:
            return b""  # `qv2e.Same` goes by the last one that was asked for
        answer = self._answer(packet[1:-3])
        if not self._looked or type(answer) is not bytes:
            return b""
        self._answers.keep(packet, answer, self._framed(answer), ahead=True, stays=self._stays)
        return answer

    @property
    def silent(self) -> bool:
        """The client has not said anything yet that is a packet."""
        return self.state is _NEW

    def vacate(self, vacant: Callable[[], bool]) -> None:
        """A client that looks on is told with each refusal whether it could have the target now, if it came again."""
        self._context.vacant = vacant

    @property
    def owes(self) -> bool:
        """The client waits for a stop, or has been told of one and has not said that it knows (non-stop mode)."""
        unseen = self._context.non_stop and self._context.unseen
        return self.state is State.RUNNING or (unseen and self.state is not State.CLOSED)

    @property
    def wants_data(self) -> bool:
        """False while input should be left with the client: output waits, or a command runs."""
        return len(self._out) < HIGH_WATER and self._decoder.buffered <= 2 * PACKET_SIZE

    @property
    def answered(self) -> bool:
        """True while it is the client's turn: all it has said is answered, and the target stands still."""
        if self._out or (self.state is not _STOPPED and self.state is not State.ENDED):
            return False
        return not (self._looks_on and self.target.running)

    @property
    def buffered(self) -> int:
        """Bytes held in both directions."""
        return len(self._out) + self._decoder.buffered

    # -- the target's and the world's side

    def stopped(self, report: StopReport) -> None:
        """The target has stopped, for whatever reason. Told to the client only if it waits for that."""
        if self._starting:
            self._early = report
        elif self._running:
            self._tell(report)
            self._on_output()

    def _tell(self, report: StopReport) -> None:
        """To a client that takes the guest for running."""
        self._heard = report.signal == SIGNAL_INT
        if self._context.non_stop:
            self._notify(report)
            return
        if report.note:
            self._send(base.console(report.note + "\n"))
        self._context.thread = report.thread
        reply = self._stop_reply(report)
        self._send(reply)
        self._ahead.stopped(reply)

    @property
    def _running(self) -> bool:
        """The client takes the guest for running."""
        return self.state is _RUNNING or (self.state is State.MONITOR and self._behind is _RUNNING)

    def _notify(self, report: StopReport) -> None:
        """Non-stop mode: what there is to say in words has to wait for a command, as nothing carries it."""
        context = self._context
        if context.stop_asked and report.signal == SIGNAL_INT:
            report = replace(report, signal=SIGNAL_NONE)  # "Packets", vCont: a thread that `t` has stopped
        context.stop_asked, context.unseen, context.thread = False, True, report.thread
        context.stopped_by_t = report.signal == SIGNAL_NONE
        if report.note:
            self._kept.keep(report.note + "\n")
        self._announce(b"Stop:" + self._stop_reply(report))

    def printed(self, text: str) -> None:
        """A breakpoint's commands print `text`, or the target does. It reaches a client that waits for a stop; one that
        does not read loses some, and is told so: output costs no memory beyond HIGH_WATER, and holds nobody up."""
        if not self._running and not self._starting:
            return
        if self._context.non_stop:
            self._kept.keep(text)
            return
        if self._print_some(text) and not self._starting:
            self._on_output()

    def command_finished(self, output: str, failure: str = "") -> list[Event]:
        """What the monitor command of a RunCommand printed, and why it failed ("" if it did not)."""
        if self.state is not State.MONITOR:
            return []
        self._move(self._behind)
        self._finish_command(output, failure)
        return self.receive_data(b"")

    def disconnected(self) -> None:
        """The client is gone. Its breakpoints go with it; the guest stays as it is, unless the client killed it."""
        if self.state is not State.CLOSED or self._killed:
            self._move(State.CLOSED)
            self._hear_no_more()
            self._context.release()
            if self._killed and offers(self.target, Kills):
                self._killed = False
                self.target.kill()

    # -- inside

    def _hear_no_more(self) -> None:
        self.target.set_listener(None)
        if offers(self.target, Tells):
            self.target.set_teller(None)

    def _let_go(self, context: Context) -> None:
        """What ends with its client."""
        breakpoints.remove_all(context)
        trace.abandoned(context)
        self._on_left()

    def _supported(self, context: Context) -> str:
        features = tuple(f for handler in self._handlers.values() for f in handler.features(context))
        echo = ("error-message+",) if "error-message+" in context.client else ()
        return supported(features + echo)

    def _move(self, state: State) -> None:
        assert state in MOVES[self.state], f"{self.state} -> {state}"
        self.state = state

    def _damaged(self, why: str) -> None:
        self._log.note("<-", f"({why})".encode())
        if self._context.no_ack:
            self._send(error_text(f"{why} came in"))  # a NAK means nothing here, and silence would hang the client
        elif "PacketSize" in why:
            self._out += b"+"
            self._send(error_text(why))  # a NAK would only bring it again
        else:
            self._out += b"-"

    def _interrupt(self) -> None:
        self._log.note("<-", b"(Ctrl-C)")
        if self.state is not State.RUNNING or self._context.continues is None:
            # While gdb steps on by itself the guest stands still most of the time: the next step is not made.
            self._interrupts = self.state is _STOPPED and not self._heard and not self._context.non_stop
            return
        if self._looks_on:
            self.stopped(StopReport(SIGNAL_INT))  # the guest goes on
        else:
            self._context.continues.interrupt()

    def _packet(self, payload: bytes, events: list[Event], packet: bytes = b"") -> None:
        """`packet` is what came, if that was nothing but one whole packet."""
        if not self._context.no_ack:
            self._out += b"+"
        self._log.note("<-", payload)
        if self.state is _NEW:
            self._begin()
        self._starting, self._early = True, None
        try:
            answer = self._answer(payload)
        finally:
            self._starting = False
        if self.state is _STOPPED and type(answer) is bytes and not self._context.non_stop:
            self._send(answer)
            if self._looked and packet and self._context.no_ack:
                self._answers.keep(packet, answer, self._last, stays=self._stays)
        else:
            self._reply(answer, events)
            if type(answer) is Running:
                self._learn(payload, packet)

    def _learn(self, payload: bytes, packet: bytes) -> None:
        """`packet`, if it came whole and alone, has made the target run: was that a step, or a run that a watchpoint
        has ended already?"""
        stopped = self._early
        met = stopped is not None and stopped.reason in resume.WATCH_REASONS
        if packet and stopped is not None and packet != (self._go if met else self._step):
            message = self._meanings.of(payload).message
            if isinstance(message, messages.Resume) and resume.is_step(self._context, message):
                self._step = packet
            elif met and isinstance(message, messages.Resume) and resume.is_run(self._context, message):
                self._go = packet
        self._steps = packet != b"" and packet == self._step
        self._goes = packet != b"" and packet == self._go and met

    def _answer(self, payload: bytes) -> Answer:
        self._looked = self._stays = False  # of what cannot be parsed
        try:
            message, handler, self._looked, changes, self._stays, _ = self._meanings.of(payload)
            if changes:
                self._answers.forget(resumed=type(message) is messages.Resume)
            if self._context.wrote >= 0 and type(message) is not messages.WriteRegister:
                self._context.wrote = -1
            if self._context.halted and not isinstance(message, (*GREETINGS, messages.NonStop)):
                self._context.halted = False
            if handler is None:
                return base.UNSUPPORTED
            if (self._interrupts or self._heard) and type(message) not in BETWEEN:
                interrupts, self._interrupts, self._heard = self._interrupts, False, False
                resumes = isinstance(message, (messages.Resume, messages.Reverse))
                if interrupts and resumes and (self._looks_on or not self.target.running):
                    return Stays(StopReport(SIGNAL_INT))
            if self.state is not _STOPPED or self._context.non_stop or self._context.frame is not None:
                refused = refusal(self._context, self.state, message)
                if refused is not None:
                    # One that looks on waits, whether the guest runs or not, and it cannot interrupt it.
                    waits = self._looks_on and self.state is _RUNNING
                    return error_text(onlooker.refusal(self._context)) if waits else refused
            if self._looks_on:
                with thread_of(self._context):
                    return onlooker.answer(self._context, message, handler)
            if self._context.selects is None:
                return handler.run(self._context, message)
            with thread_of(self._context):
                return handler.run(self._context, message)
        except messages.MessageError as error:
            return error_text(f"malformed packet: {error}")
        except TargetError as error:
            return error_text(str(error))
        except Exception as error:
            self._on_error(error)
            return error_text(f"internal error in {payload[:12]!r}: {type(error).__name__}: {error}")

    def _begin(self) -> None:
        """The first packet: what the client asks from now on is to hold until it lets the guest run."""
        if not self._looks_on:
            self._context.halted = self.target.running
            self.target.halt()
        self._move(State.STOPPED)

    def _reply(self, answer: Answer, events: list[Event]) -> None:
        match answer:
            case bytes():
                if self.state is _RUNNING and answer[:1] == b"T":
                    self._move(State.STOPPED)  # `?` while it ran has stopped it
                self._send(answer)
                if self._early is not None and self._context.non_stop:
                    self.stopped(self._early)  # `vCont;t` and `vCtrlC`, where the target stops at once
            case Running():
                self._run()
                if self._early is not None:
                    self._tell(self._early)
            case Stays(report):
                self._run()
                self._tell(report)
            case Silent():
                pass
            case Monitor(text, output, failure):
                if output := self._kept.take() + output:
                    self._print(output)
                if text:
                    self._move_to_monitor()
                    events.append(RunCommand(text))
                else:
                    self._finish_command("", failure)
            case Stopped(replies):
                self._killed = False
                self._move(State.STOPPED)
                if replies:
                    self._send(resume.stop_reply(self._context, self.target.report()))
            case Gone(payload, killed):
                self._leave(payload, killed, events)

    def _run(self) -> None:
        """The client takes the guest for running from here on."""
        self._killed = False
        self._move(State.RUNNING)
        if self._context.non_stop:
            self._send(base.OK)

    def _move_to_monitor(self) -> None:
        if self.state is State.ENDED:
            self._move(State.STOPPED)
        self._behind = self.state
        self._move(State.MONITOR)

    def _leave(self, payload: bytes | None, killed: bool, events: list[Event]) -> None:
        self._killed = killed
        self._context.release()
        if payload is not None:
            self._send(payload)
        # `k` closes even in extended mode: it has no answer by which a client could go on.
        if self._context.extended and payload is not None:
            self._move(State.ENDED)
            return
        self._move(State.CLOSED)
        self._hear_no_more()
        events.append(Close())

    def _stop_reply(self, report: StopReport) -> bytes:
        reply = resume.stop_reply(self._context, report)
        after = State.ENDED if report.exit_code is not None else State.STOPPED
        if self.state is State.MONITOR:
            self._behind = after
        else:
            self._move(after)
        return reply

    def _finish_command(self, output: str, failure: str) -> None:
        """The output and the final OK. A client of old knows no error texts here ("General Query Packets", qRcmd):
        it gets the failure as output."""
        if output:
            self._print(output if output.endswith("\n") else output + "\n")
        if failure and "error-message+" in self._context.client:
            self._send(error_text(failure))
            return
        if failure:
            self._print(failure + "\n")
        self._send(base.OK)
