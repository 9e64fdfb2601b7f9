"""A PS/2 mouse with wheel and five buttons: commands, stream, remote and wrap mode, what a person does with it.

Sources: IBM PS/2 Hardware Interface Technical Reference, "Mouse": commands, data report, status, scaling table;
Microsoft, "Windows and the 5-Button Wheel Mouse": the sample rates 200, 100, 80 ask for the wheel (ID 3), then 200,
200, 80 for five buttons (ID 4), and the fourth byte of the reports.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

from emu.clock import Clock
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

ACK, RESEND, ERROR, BAT_OK = 0xFA, 0xFE, 0xFC, 0xAA
MS = 1_000_000
BAT_NS = 2 * MS  #: the basic assurance test; short, as the keyboard's
RATES = (10, 20, 40, 60, 80, 100, 200)  #: samples a second
BUTTONS = {"left": 1, "right": 2, "middle": 4, "side": 8, "extra": 16}
_KNOCK_WHEEL, _KNOCK_FIVE = [200, 100, 80], [200, 200, 80]
#: 2:1 scaling of a count; from 6 on it doubles.
_SCALED = (0, 1, 1, 3, 6, 9)


class UnknownAction(ValueError):
    """`args[0]` is a sentence: what of a mouse action cannot be done."""


@dataclass(slots=True)
class State:
    """`x`, `y`, `wheel` are counts not yet reported; x and y in quarters, as resolution 2 counts 4 to the mm.
    `actions` are a person's still to come: ("move", dx, dy, wheel), ("press", mask, 0, 0), ("release", mask, 0, 0).
    `reported` are the buttons of the last report. `rates` are the last three sample rates set."""

    responses: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    actions: list[tuple[str, int, int, int]] = field(default_factory=list)
    rates: list[int] = field(default_factory=list)
    command: int | None = None
    refused: bool = False  #: the last input was invalid
    testing: bool = False
    enabled: bool = False
    remote: bool = False
    wrap: bool = False
    double: bool = False
    rate: int = 100
    resolution: int = 2
    identity: int = 0
    buttons: int = 0
    reported: int = 0
    x: int = 0
    y: int = 0
    wheel: int = 0


class Mouse:
    """The mouse at the end of its cable: `take` and `receive` are the controller's side."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_data: Callable[[], None] = lambda: None
        self._bat = clock.timer("mouse.bat", self._bat_done)
        self._sampler = clock.timer("mouse.sample", self._sample)
        self.state = State()
        self.reset()

    def reset(self) -> None:
        """Power-on. The result of the test (AAh, 00h) would be sent while the controller inhibits the interface, and
        is not kept for later: BIOSes that enable it, as BIOS-bochs, take the next byte for the keyboard's."""
        self._sampler.cancel()
        self._bat.cancel()
        self.state = State()

    def save(self) -> State:
        return copy.deepcopy(self.state)

    def restore(self, state: State) -> None:
        """The timers are restored with the clock."""
        self.state = copy.deepcopy(state)

    # -- the cable

    @property
    def ready(self) -> bool:
        return bool(self.state.responses or self.state.queue)

    @property
    def busy(self) -> bool:
        return self.state.testing

    def take(self) -> int:
        """The next byte to the system. Only when `ready`."""
        s = self.state
        return s.responses.pop(0) if s.responses else s.queue.pop(0)

    def receive(self, byte: int) -> None:
        """A command, or the byte that belongs to it. A partly sent report is dropped."""
        s = self.state
        s.queue.clear()
        if s.wrap and byte not in (0xEC, 0xFF):
            self._answer(byte)
        elif s.command is not None and byte < 0xE6:
            self._argument(byte)
        else:
            s.command = None
            self._execute(byte)
        self.on_data()

    def _answer(self, *values: int) -> None:
        self.state.responses += values
        self.state.last = list(values)

    # -- commands

    def _execute(self, byte: int) -> None:
        s = self.state
        plain = _PLAIN.get(byte)
        if byte == 0xFE:
            s.responses += s.last
        elif plain is None:
            self._refuse()
        else:
            s.refused = False
            if byte == 0xFF:
                s.responses.clear()  # as a keyboard's: an unsent result of the test at power-on is not sent
            self._answer(ACK)
            plain(self)

    def _argument(self, byte: int) -> None:
        s = self.state
        command, s.command = s.command, None
        if command == 0xE8 and byte <= 3:
            s.resolution = byte
        elif command == 0xF3 and byte in RATES:
            s.rate = byte
            s.rates = [*s.rates, byte][-3:]
            if s.rates == _KNOCK_WHEEL and s.identity == 0:
                s.identity = 3
            elif s.rates == _KNOCK_FIVE and s.identity == 3:
                s.identity = 4
        else:
            s.command = command
            self._refuse()
            return
        s.refused = False
        self._answer(ACK)

    def _refuse(self) -> None:
        """An invalid input is asked for again; a second one in a row is an error (IBM, "Error Handling")."""
        s = self.state
        self._answer(ERROR if s.refused else RESEND)
        s.refused = not s.refused

    def _reset_command(self) -> None:
        self._defaults()
        s = self.state
        s.identity, s.wrap, s.remote, s.testing = 0, False, False, True
        s.rates = []
        self._bat.arm(self._clock.now + BAT_NS)

    def _bat_done(self, _deadline: int) -> None:
        self.state.testing = False
        self._answer(BAT_OK, 0)
        self.on_data()

    def _defaults(self) -> None:
        s = self.state
        s.rate, s.resolution, s.double, s.enabled, s.remote = 100, 2, False, False, False
        self._forget()

    def _forget(self) -> None:
        """Counters are cleared by every command that changes the mode."""
        s = self.state
        s.x = s.y = s.wheel = 0

    def _enable(self) -> None:
        self._forget()
        self.state.enabled = True
        self._schedule()

    def _disable(self) -> None:
        self._forget()
        self.state.enabled = False

    def _mode(self, remote: bool) -> None:
        self._forget()
        self.state.remote = remote
        self._schedule()

    def _wrap_mode(self, on: bool) -> None:
        self._forget()
        self.state.wrap = on

    def _status(self) -> None:
        s = self.state
        swapped = (s.buttons & 1) << 2 | (s.buttons & 4) >> 1 | (s.buttons & 2) >> 1
        flags = (0x40 if s.remote else 0) | (0x20 if s.enabled else 0) | (0x10 if s.double else 0)
        s.responses += (flags | swapped, s.resolution, s.rate)
        s.last = s.responses[-4:]

    def _scale(self, double: bool) -> None:
        self.state.double = double

    def _await(self, command: int) -> None:
        self.state.command = command

    # -- reports

    def _report(self, scaled: bool) -> list[int]:
        """The counters as a report, which clears them; what is beyond nine bits overflows."""
        s = self.state
        counts, flags = [], 0
        for value, sign, overflow in ((s.x, 0x10, 0x40), (s.y, 0x20, 0x80)):
            count = abs(value) // 4
            if scaled:
                count = _SCALED[count] if count < len(_SCALED) else 2 * count
            if value < 0:
                count = -count
            if not -256 <= count <= 255:
                count, flags = (255 if count > 0 else -256), flags | overflow
            flags |= sign if count < 0 else 0
            counts.append(count & 0xFF)
        report = [flags | 8 | s.buttons & 7, *counts]
        if s.identity:
            most = 127 if s.identity == 3 else 7
            wheel = min(max(s.wheel, -most - 1), most)
            report.append(wheel & 0xFF if s.identity == 3 else wheel & 0x0F | (s.buttons & 0x18) << 1)
        s.x, s.y = _remainder(s.x), _remainder(s.y)
        s.wheel, s.reported = 0, s.buttons
        return report

    def _read_data(self) -> None:
        report = self._report(scaled=False)
        self.state.responses += report
        self.state.last = [ACK, *report]

    @property
    def _streams(self) -> bool:
        s = self.state
        return s.enabled and not (s.remote or s.wrap or s.testing)

    def _schedule(self) -> None:
        if self._streams and self._sampler.deadline is None:
            self._sampler.arm(self._clock.now + 1_000_000_000 // self.state.rate)

    def _sample(self, _deadline: int) -> None:
        """One sampling instant: the person's next action, and a report when something has changed."""
        s = self.state
        if not self._streams:
            return
        if s.actions and not self.ready:
            self._act(s.actions.pop(0))
        changed = abs(s.x) >= 4 or abs(s.y) >= 4 or s.wheel or s.buttons != s.reported
        if changed and not self.ready:
            s.queue += self._report(s.double)
            s.last = list(s.queue)
            self.on_data()
        if s.actions or self.ready:
            self._schedule()

    # -- a person

    def do(self, text: str) -> None:
        """`move DX DY` (counts, right and up), `wheel N` (up), `down`, `up` or `click` BUTTON. Raises UnknownAction,
        with nothing done. While the guest does not listen, motion is lost and buttons are remembered."""
        self.state.actions += _parse(text)
        if not self._streams:
            while self.state.actions:
                self._act(self.state.actions.pop(0))
        self._schedule()

    def _act(self, action: tuple[str, int, int, int]) -> None:
        s = self.state
        kind, a, b, c = action
        if kind == "move":
            s.x += a << s.resolution
            s.y += b << s.resolution
            s.wheel += c
        elif kind == "press":
            s.buttons |= a
        else:
            s.buttons &= ~a

    def check(self, text: str) -> None:
        """Raises UnknownAction for what `do` would refuse."""
        _parse(text)

    def view(self) -> DeviceView:
        s = self.state
        kind = {0: "PS/2 mouse", 3: "wheel mouse", 4: "five-button wheel mouse"}[s.identity]
        mode = "wrap" if s.wrap else "remote" if s.remote else "stream"
        down = " ".join(name for name, bit in BUTTONS.items() if s.buttons & bit)
        return DeviceView(
            "mouse",
            f"IBM {kind}" if not s.identity else f"IntelliMouse, as {kind}",
            "behind the 8042",
            (
                FieldView("mode", mode, "enabled" if s.enabled else "disabled"),
                FieldView("ID", s.identity),
                FieldView("sample rate", s.rate, "a second"),
                FieldView("resolution", s.resolution, f"{1 << s.resolution} counts/mm, " + (
                    "2:1" if s.double else "1:1")),
                FieldView("buttons down", down or "none"),
                FieldView("still to do", len(s.actions)),
            ),
        )  # fmt: skip


def _remainder(value: int) -> int:
    """What is less than a count stays, with its sign."""
    return value % 4 if value >= 0 else -(-value % 4)


def _parse(text: str) -> list[tuple[str, int, int, int]]:
    words = text.split()
    word, rest = (words[0], words[1:]) if words else ("", [])
    if word in ("down", "up", "click"):
        if len(rest) != 1 or rest[0] not in BUTTONS:
            raise UnknownAction(f"mouse {word} takes one of {', '.join(BUTTONS)}")
        press, release = ("press", BUTTONS[rest[0]], 0, 0), ("release", BUTTONS[rest[0]], 0, 0)
        return {"down": [press], "up": [release], "click": [press, release]}[word]
    try:
        numbers = [int(part) for part in rest]
    except ValueError:
        numbers = []
    if any(abs(number) > 1_000_000 for number in numbers):
        raise UnknownAction(f"mouse {text}: a million counts are the most")
    if word == "move" and len(numbers) == 2:
        return [("move", numbers[0], numbers[1], 0)]
    if word == "wheel" and len(numbers) == 1:
        return [("move", 0, 0, -numbers[0])]  # up, away from the user, is negative
    raise UnknownAction(f"mouse {text}: write move DX DY, wheel N, or down, up or click with a button")


_PLAIN: dict[int, Callable[[Mouse], None]] = {
    0xE6: lambda m: m._scale(False),
    0xE7: lambda m: m._scale(True),
    0xE8: lambda m: m._await(0xE8),
    0xE9: Mouse._status,
    0xEA: lambda m: m._mode(False),
    0xEB: Mouse._read_data,
    0xEC: lambda m: m._wrap_mode(False),
    0xEE: lambda m: m._wrap_mode(True),
    0xF0: lambda m: m._mode(True),
    0xF2: lambda m: m._answer(m.state.identity),
    0xF3: lambda m: m._await(0xF3),
    0xF4: Mouse._enable,
    0xF5: Mouse._disable,
    0xF6: Mouse._defaults,
    0xFF: Mouse._reset_command,
}
