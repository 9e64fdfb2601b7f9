"""What loops that wait are made of: RDTSC, RDTSCP, PAUSE and the UART's line status, the same in both run loops."""

from __future__ import annotations

from itertools import pairwise

import pytest

from emu.bus import Ports
from emu.debugger import Debugger
from emu.stops import StopKind
from emu.unicorn_engine import HELPER, UnicornEngine
from machines import debugger, rom

pytestmark = pytest.mark.skipif(
    isinstance(HELPER, str), reason=f"there is no helper: {HELPER if isinstance(HELPER, str) else ''}"
)

#: Stores the low half of what each of 1000 reads of the counter gives, with PAUSE in between, and a port access now
#: and then; at last RDTSCP with what it leaves in ECX, which was something else before.
BODY = """
    mov ecx, 0xc0000103      ; IA32_TSC_AUX
    mov eax, 0x1234
    xor edx, edx
    wrmsr
    mov di, 0x1000
    mov cx, 1000
    cld
turn:
    rdtsc
    stosd
    pause
    test cx, 63
    jnz next
    in al, 0x61
next:
    loop turn
    mov ecx, 0x55
    rdtscp
    stosd
    mov eax, ecx
    stosd
    mov al, 0
    out 0xf4, al
    hlt
"""


def run(monkeypatch: pytest.MonkeyPatch, loop: str, body: str = BODY, **config: object) -> Debugger:
    monkeypatch.setenv("V2E_ENGINE", loop)
    made = debugger(rom(body), **config)
    executor = made.machine.executor
    assert isinstance(executor, UnicornEngine)
    assert executor.run_loop == loop
    made.set_limit(10_000_000)
    made.begin_continue()
    stop = made.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    return made


def test_each_read_of_the_counter_tells_virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = run(monkeypatch, "fast").machine
    times = [int.from_bytes(machine.read_physical(0x1000 + 4 * i, 4), "little") for i in range(1000)]
    # RDTSC STOSD PAUSE TEST JNZ LOOP take 10 ns each, and every 64th turn has an IN besides
    steps = [after - before for before, after in pairwise(times)]
    assert set(steps) == {60, 70}
    assert steps.count(70) == 1000 // 64


def test_rdtscp_loads_tsc_aux(monkeypatch: pytest.MonkeyPatch) -> None:
    for loop in ("fast", "gate"):
        assert run(monkeypatch, loop).read_linear(0x1000 + 4 * 1001, 4) == b"\x34\x12\0\0"


@pytest.mark.parametrize("length", [None, 1, 7, 1000])
def test_both_loops_and_any_slice_give_the_same(monkeypatch: pytest.MonkeyPatch, length: int | None) -> None:
    assert run(monkeypatch, "fast", slice=length).fingerprint() == run(monkeypatch, "gate").fingerprint()


def test_pause_does_not_leave_the_cpu_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = run(monkeypatch, "fast").machine.executor
    assert isinstance(executor, UnicornEngine)
    assert executor.statistics is not None
    assert executor.statistics.unwound < 10


SERIAL = """
    mov dx, 0x3fb
    mov al, 0x80
    out dx, al
    mov dx, 0x3f8
    mov al, 12               ; 9600 baud
    out dx, al
    mov dx, 0x3fb
    mov al, 3
    out dx, al
    mov si, message
    cld
turn:
    cs lodsb
    test al, al
    jz done
    mov ah, al
wait_empty:
    mov dx, 0x3fd
    in al, dx
    test al, 0x20
    jz wait_empty
    mov dx, 0x3f8
    mov al, ah
    out dx, al
    jmp turn
done:
    mov al, 0
    out 0xf4, al
    hlt
"""


def test_a_message_at_9600_baud_costs_its_instructions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for loop in ("fast", "gate"):
        made = run(monkeypatch, loop, SERIAL + "message: db 'a message on the line', 0")
        assert made.machine.serial_text() == "a message on the line"
        # a character would take a million ns; here it takes the dozen instructions around it
        assert made.machine.clock.now < 10_000


def counted(monkeypatch: pytest.MonkeyPatch, loop: str, body: str, *, told: bool = False) -> tuple[Debugger, list[int]]:
    """As `run`, with the ports whose writes reached Python; `told`: somebody waits for each character."""
    reached: list[int] = []
    real = Ports.port_out

    def port_out(ports: Ports, port: int, size: int, value: int) -> None:
        reached.append(port)
        real(ports, port, size, value)

    with monkeypatch.context() as patch:
        patch.setattr(Ports, "port_out", port_out)
        patch.setenv("V2E_ENGINE", loop)
        made = debugger(rom(body))
        if told:
            made.machine.outputs.on_text = lambda name: None
        made.set_limit(10_000_000)
        made.begin_continue()
        assert made.run().kind is StopKind.EXIT
    return made, reached


@pytest.mark.parametrize("told", [False, True])
def test_characters_sent_by_polling_are_collected_unless_somebody_waits_for_them(
    monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    body = SERIAL + f"message: db '{'a message on the line ' * 20}', 0"
    fast, reached = counted(monkeypatch, "fast", body, told=told)
    gate, _ = counted(monkeypatch, "gate", body)
    assert fast.machine.serial_text() == gate.machine.serial_text() == "a message on the line " * 20
    assert fast.fingerprint() == gate.fingerprint()
    assert reached.count(0x3F8) == (441 if told else 2)  # one of them the divisor


def test_characters_that_interrupt_or_come_back_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    for port, value in ((0x3F9, 2), (0x3FC, 0x10), (0x3FB, 0x43)):  # IER: THRE; MCR: loop; LCR: break
        body = SERIAL.replace("    mov si, message", f"mov dx, {port}\nmov al, {value}\nout dx, al\nmov si, message")
        body += "message: db 'a message', 0"
        fast, reached = counted(monkeypatch, "fast", body)
        assert reached.count(0x3F8) == 1 + len("a message")
        assert fast.fingerprint() == counted(monkeypatch, "gate", body)[0].fingerprint()
