"""An IBM PS/2 101/102-key keyboard: keys to scan codes, typematic repeat, the commands a system sends it.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)": "Commands from the system",
"Commands to the system", "Keyboard buffer", "Typematic", scan code sets 1-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from emu.clock import Clock
from emu.devices.copied import copied
from emu.devices.keyboard_tables import ALIASES, KEYS, Key, key_of_char
from emu.record import dataclass, field
from emu.views import DeviceView, FieldView

ACK, RESEND, ECHO, BAT_OK = 0xFA, 0xFE, 0xEE, 0xAA
ID = (0xAB, 0x83)  #: Read ID (F2h): an enhanced keyboard
BUFFER_SIZE = 16  #: bytes of scan codes; the 17th place takes the overrun code
OVERRUN = {1: 0xFF, 2: 0x00, 3: 0x00}  #: Key Detection Error/Overrun, by scan code set
DEFAULT_RATE = 0x2B  #: typematic 10.9 characters/s after 500 ms
MS = 1_000_000
#: The basic assurance test. The manual gives 300 to 500 ms after a reset command; nothing depends on its length, so it
#: is short here, as on keyboards that are not made of keys.
BAT_NS = 2 * MS
#: How far apart `type_text` presses and releases: fast, and slow enough for a BIOS whose buffer holds 15 keys.
TYPING_NS = 5 * MS

FIRST_COMMAND = 0xED
_LED_NAMES = ((1, "ScrollLock"), (2, "NumLock"), (4, "CapsLock"))
_KIND_OF_COMMAND = {0xF7: "t", 0xF8: "b", 0xF9: "m", 0xFA: "tb", 0xFB: "t", 0xFC: "b", 0xFD: "m"}


class UnknownKey(KeyError):
    """No key has this name, or types this character; `args[0]` is it."""


@dataclass(slots=True)
class State:
    """`responses` (to commands) go out before `queue` (scan codes). `held` are names of keys down, oldest first.
    `typing` are key events still to come, "+a" down and "-a" up. `kinds` maps set 3 codes to key types set by
    commands: "t" typematic, "b" with break code, "tb" both, "m" make only. `last` is the byte that Resend repeats."""

    responses: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    typing: list[str] = field(default_factory=list)
    kinds: dict[int, str] = field(default_factory=dict)
    scanning: bool = True
    resume_scanning: bool = False
    testing: bool = True
    scan_set: int = 2
    leds: int = 0
    rate: int = DEFAULT_RATE
    repeating: str | None = None
    command: int | None = None
    last: int = 0


class Keyboard:
    """The keyboard at the end of its cable. A controller takes bytes with `take` and gives them with `receive`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.on_data: Callable[[], None] = lambda: None  #: told when a byte waits; set by the controller
        self._bat = clock.timer("keyboard.bat", self._bat_done)
        self._repeat = clock.timer("keyboard.typematic", self._typematic)
        self._typist = clock.timer("keyboard.typing", self._type_next)
        self.state = State()
        self.reset()

    def reset(self) -> None:
        """Power-on: the basic assurance test runs, then AAh is sent."""
        self._typist.cancel()
        self._repeat.cancel()
        self.state = State()
        self._bat.arm(self._clock.now + BAT_NS)

    def save(self) -> State:
        return copied(self.state)

    def restore(self, state: State) -> None:
        """The timers are restored with the clock."""
        self.state = copied(state)

    # -- the cable

    @property
    def ready(self) -> bool:
        """A byte waits to be taken."""
        return bool(self.state.responses or self.state.queue)

    @property
    def busy(self) -> bool:
        """During its self-test the keyboard does not clock a command in."""
        return self.state.testing

    def take(self) -> int:
        """The next byte to the system. Only when `ready`."""
        s = self.state
        s.last = s.responses.pop(0) if s.responses else s.queue.pop(0)
        if not self.ready:
            self._feed_typing()
        return s.last

    def receive(self, byte: int) -> None:
        """A byte from the system: a command or its option byte."""
        s = self.state
        pending, s.command = s.command, None
        # a command in place of an option byte is taken as a command (IBM, "Set/Reset Status Indicators")
        if pending is not None and byte < FIRST_COMMAND:
            self._option(pending, byte)
        else:
            if pending in (0xFB, 0xFC, 0xFD):
                s.scanning = s.resume_scanning
            self._execute(byte)
        if self.ready:
            self.on_data()

    # -- commands from the system

    def _execute(self, byte: int) -> None:
        s = self.state
        if byte == 0xEE:
            s.responses.append(ECHO)
        elif byte == 0xFE:
            s.responses.append(s.last)
        elif byte == 0xF2:
            s.responses += (ACK, *ID)
        elif byte in (0xED, 0xF0, 0xF3, 0xFB, 0xFC, 0xFD):
            s.responses.append(ACK)
            s.command = byte
            if byte in (0xF0, 0xFB, 0xFC, 0xFD):
                self._clear_buffer()
            if byte >= 0xFB:
                s.resume_scanning, s.scanning = s.scanning, False
        elif byte == 0xF4:
            self._clear_buffer()
            s.scanning = True
            s.responses.append(ACK)
        elif byte in (0xF5, 0xF6):
            self._defaults()
            s.scanning = byte == 0xF6
            s.responses.append(ACK)
        elif 0xF7 <= byte <= 0xFA:
            self._clear_buffer()
            s.kinds = {key.set3: _KIND_OF_COMMAND[byte] for key in KEYS.values()}
            s.responses.append(ACK)
        elif byte == 0xFF:
            # what it has not sent, as the result of the test at power-on, goes with its output buffer
            s.responses = [ACK]
            self._defaults()
            s.scanning, s.testing = True, True
            self._bat.arm(self._clock.now + BAT_NS)
        else:
            s.responses.append(RESEND)

    def _option(self, command: int, byte: int) -> None:
        s = self.state
        if command == 0xED and byte <= 7:
            s.leds = byte
        elif command == 0xF3 and byte <= 0x7F:
            s.rate = byte
        elif command == 0xF0 and byte <= 3:
            s.responses.append(ACK)
            if byte == 0:
                s.responses.append(s.scan_set)
            else:
                s.scan_set = byte
            return
        elif command in (0xFB, 0xFC, 0xFD) and any(key.set3 == byte for key in KEYS.values()):
            s.kinds[byte] = _KIND_OF_COMMAND[command]
            s.command = command  # the list of keys goes on until a command comes
        else:
            s.command = command  # the option is awaited again
            s.responses.append(RESEND)
            return
        s.responses.append(ACK)

    def _clear_buffer(self) -> None:
        self.state.queue.clear()
        self.state.repeating = None
        self._repeat.cancel()

    def _defaults(self) -> None:
        self._clear_buffer()
        s = self.state
        s.rate, s.scan_set, s.leds, s.kinds = DEFAULT_RATE, 2, 0, {}

    def _bat_done(self, _deadline: int) -> None:
        s = self.state
        s.testing = False
        s.responses.append(BAT_OK)
        self.on_data()

    # -- keys

    def press(self, name: str) -> None:
        """A key goes down, and repeats until released. One that is down already stays so. Raises UnknownKey."""
        self._down(_key(name), repeat=True)

    def _down(self, key: Key, repeat: bool) -> None:
        s = self.state
        if key.name in s.held:
            return
        s.held.append(key.name)
        self._send(self._make(key))
        # Pause has no typematic action in sets 1 and 2; in set 3 the key's type decides
        if repeat and key.name != "pause" and (s.scan_set != 3 or "t" in self._kind(key)):
            s.repeating = key.name
            self._repeat.arm(self._clock.now + ((s.rate >> 5 & 3) + 1) * 250 * MS)

    def release(self, name: str) -> None:
        """A key comes up. Raises UnknownKey."""
        key = _key(name)
        s = self.state
        if key.name not in s.held:
            return
        s.held.remove(key.name)
        if s.repeating == key.name:
            s.repeating = None
            self._repeat.cancel()
        self._send(self._break(key))

    def check(self, names: Iterable[str]) -> None:
        """Raises UnknownKey for a name that no key has; types nothing."""
        for name in names:
            _key(name)

    def chord(self, names: Iterable[str]) -> None:
        """Type keys that are held together: pressed in order, released in reverse order. Raises UnknownKey before
        any of them is pressed."""
        keys = [_key(name).name for name in names]
        self._type([f"+{name}" for name in keys] + [f"-{name}" for name in reversed(keys)])

    def type_text(self, text: str) -> None:
        """Type `text` on the US layout, each event when the guest has taken the ones before. Raises UnknownKey,
        with nothing typed, for a character that no key has."""
        events: list[str] = []
        for char in text:
            found = key_of_char(char)
            if found is None:
                raise UnknownKey(char)
            name, shift = found
            stroke = [f"+{name}", f"-{name}"]
            events += ["+shift", *stroke, "-shift"] if shift else stroke
        self._type(events)

    def _type(self, events: list[str]) -> None:
        self.state.typing += events
        if self._typist.deadline is None:
            self._feed_typing()

    def _feed_typing(self) -> None:
        """What a person would type waits for an empty buffer, so that no length of it overruns."""
        s = self.state
        if s.typing and s.scanning and not s.testing and self._typist.deadline is None:
            self._typist.arm(self._clock.now + TYPING_NS)

    def _type_next(self, _deadline: int) -> None:
        s = self.state
        if not s.typing or self.ready or not s.scanning or s.testing:
            return  # taking the last byte, or enabling, starts it again
        event = s.typing.pop(0)
        if event[0] == "+":
            self._down(KEYS[event[1:]], repeat=False)  # a guest that reads late gets each character once
        else:
            self.release(event[1:])
        self._feed_typing()

    def _typematic(self, deadline: int) -> None:
        s = self.state
        if s.repeating is None:
            return
        self._send(self._make(KEYS[s.repeating]))
        # period = (8 + A) * 2^B * 4.17 ms, A bits 2-0, B bits 4-3 (IBM, "Set Typematic Rate/Delay")
        self._repeat.arm(deadline + (8 + (s.rate & 7)) * (1 << (s.rate >> 3 & 3)) * 4_170_000)

    def _send(self, codes: list[int]) -> None:
        s = self.state
        if not s.scanning or s.testing or not codes:
            return
        if len(s.queue) + len(codes) <= BUFFER_SIZE:
            s.queue += codes
        elif len(s.queue) <= BUFFER_SIZE and (not s.queue or s.queue[-1] != OVERRUN[s.scan_set]):
            s.queue.append(OVERRUN[s.scan_set])
        self.on_data()

    # -- scan codes

    def _kind(self, key: Key) -> str:
        return self.state.kinds.get(key.set3, key.kind)

    def _encode(self, prefix: bool, set2: int, up: bool) -> list[int]:
        """One code of sets 1 or 2."""
        head = [0xE0] if prefix else []
        if self.state.scan_set == 2:
            return [*head, 0xF0, set2] if up else [*head, set2]
        # set 1 marks a break with bit 7 of the make code
        code = Key("", set2, 0).set1
        return [*head, code | 0x80 if up else code]

    def _wrap(self, key: Key, up: bool) -> list[int]:
        """The shift codes that cursor keys and keypad '/' send around themselves, so that a system that knows the
        83-key keyboard sees unshifted keypad keys (IBM, set 2, notes to keys 75-89 and 95)."""
        held = self.state.held
        shifts = [code for name, code in (("shift", 0x12), ("rshift", 0x59)) if name in held]
        out: list[int] = []
        if shifts and (key.nav or key.name == "kp/") and not (key.nav and self._numlock):
            for code in shifts:
                out += self._encode(True, code, not up)
        elif key.nav and self._numlock and not shifts:
            out += self._encode(True, 0x12, up)
        return out

    @property
    def _numlock(self) -> bool:
        return bool(self.state.leds & 2)

    def _make(self, key: Key) -> list[int]:
        s = self.state
        if s.scan_set == 3:
            return [key.set3]
        held = set(s.held)
        ctrl, shift = held & {"ctrl", "rctrl"}, held & {"shift", "rshift"}
        if key.name == "pause":
            if ctrl:
                return self._encode(True, 0x7E, False) + self._encode(True, 0x7E, True)
            down = [0xE1, *self._encode(False, 0x14, False), *self._encode(False, 0x77, False)]
            return [*down, 0xE1, *self._encode(False, 0x14, True), *self._encode(False, 0x77, True)]
        if key.name == "printscreen":
            if held & {"alt", "ralt"}:
                return self._encode(False, 0x84, False)
            plain = self._encode(True, 0x7C, False)
            return plain if ctrl or shift else self._encode(True, 0x12, False) + plain
        return self._wrap(key, up=False) + self._encode(key.extended, key.set2, False)

    def _break(self, key: Key) -> list[int]:
        s = self.state
        if s.scan_set == 3:
            return [0xF0, key.set3] if "b" in self._kind(key) else []
        held = set(s.held)
        if key.name == "pause":
            return []
        if key.name == "printscreen":
            if held & {"alt", "ralt"}:
                return self._encode(False, 0x84, True)
            plain = self._encode(True, 0x7C, True)
            return plain if held & {"ctrl", "rctrl", "shift", "rshift"} else plain + self._encode(True, 0x12, True)
        return self._encode(key.extended, key.set2, True) + self._wrap(key, up=True)

    def view(self) -> DeviceView:
        s = self.state
        leds = " ".join(name for bit, name in _LED_NAMES if s.leds & bit)
        period = (8 + (s.rate & 7)) * (1 << (s.rate >> 3 & 3)) * 4.17
        return DeviceView(
            "keyboard",
            "IBM PS/2 101/102-key keyboard",
            "behind the 8042",
            (
                FieldView("scanning", s.scanning, "self-test runs" if s.testing else ""),
                FieldView("scan code set", s.scan_set),
                FieldView("indicators", s.leds, leds or "none lit"),
                FieldView("typematic", s.rate, f"{1000 / period:.1f}/s after {((s.rate >> 5 & 3) + 1) * 250} ms"),
                FieldView("buffer", len(s.queue), " ".join(f"{b:02x}" for b in s.queue)),
                FieldView("keys down", " ".join(s.held)),
                FieldView("still to type", sum(e[0] == "+" for e in s.typing)),
            ),
        )


def _key(name: str) -> Key:
    found = KEYS.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise UnknownKey(name)
    return found
