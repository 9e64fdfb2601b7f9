"""Programs of IRQ 0 from counter 0 of the 8254, with what else a guest does with both chips between its ticks."""

from __future__ import annotations

import random
from collections.abc import Callable

from emu.debugger import Debugger
from machines import debugger, programs_pics, rom
from run_loops import loop

#: Both 8259 from 20h on, IRQ 0's handler at `timer`, COM1's at `serial`, all others at `other`, each of which ends its
#: interrupt. What is seen goes from 1000h on.
BEGIN = """
    mov es, ax
    mov ss, ax
    mov sp, 0x7000
    mov cx, 256
    xor di, di
vector:
    mov word [di], other
    mov [di+2], cs
    add di, 4
    loop vector
    mov word [0x20*4], timer
    mov word [0x24*4], serial
    mov di, 0x1000
    cld
    call program
    mov al, 0x34
    out 0x43, al
    mov al, COUNT & 255
    out 0x40, al
    mov al, COUNT >> 8
    out 0x40, al
    mov dx, 0x3FC
    mov al, 8
    out dx, al
    mov word [0x500], TURNS
    sti
turn:
"""
END = (
    """
    dec word [0x500]
    jnz near turn
    cli
    mov al, 0
    out 0xf4, al
    hlt
program:
"""
    + programs_pics("1")
    + """
serial:
    push ax
    push dx
    mov dx, 0x3FA
    in al, dx
    stosb
    mov al, 0x64
    out 0x20, al
    pop dx
    pop ax
    iret
other:
    push ax
    inc byte [0x504]
    mov al, 0x20
    out 0xA0, al
    out 0x20, al
    pop ax
    iret
timer:
    push ax
    inc word [0x502]
"""
)
HANDLERS = (
    "mov al, 0x20\nout 0x20, al\npop ax\niret",
    "mov al, 0x60\nout 0x20, al\npop ax\niret",
    # as Linux: masked, ended, unmasked, with the counter read for a clock
    "in al, 0x21\npush ax\nor al, 1\nout 0x21, al\nmov al, 0x20\nout 0x20, al\nmov al, 0\nout 0x43, al\nin al, 0x40\n"
    "stosb\nin al, 0x40\nstosb\npop ax\nout 0x21, al\npop ax\niret",
    # long, and what comes meanwhile comes in it
    "push cx\nmov al, 0x20\nout 0x20, al\nsti\nmov cx, 30\nloop $\npop cx\npop ax\niret",
    # so long that IR0 rises, or rises and falls, before it ends
    "push cx\nmov cx, 3000\nloop $\nmov al, 0x20\nout 0x20, al\npop cx\npop ax\niret",
    "rdtsc\nstosb\nmov al, 0x0A\nout 0x20, al\nin al, 0x20\nstosb\nmov al, 0x20\nout 0x20, al\npop ax\niret",
)


def operation(chance: random.Random) -> str:
    """What a turn may do: what is plain more often than what takes the edges away from the helper."""
    number = chance.randrange

    def out(port: int, value: int) -> str:
        return f"mov al, {value}\nout {port}, al\n"

    plain: list[Callable[[], str]] = [
        lambda: f"mov cx, {number(1, 1200)}\nloop $\n",
        lambda: f"mov cx, {number(1, 120)}\nloop $\n",
        lambda: out(0x43, 0) + "in al, 0x40\nstosb\nin al, 0x40\nstosb\n",
        lambda: "in al, 0x40\nstosb\n",
        lambda: out(0x21, number(2)) + f"mov cx, {number(1, 600)}\nloop $\n" + out(0x21, 0),
        lambda: f"cli\nmov cx, {number(1, 600)}\nloop $\nsti\n",
        lambda: "in al, 0x21\nstosb\n",
        lambda: out(0x20, chance.choice((0x0A, 0x0B))) + "in al, 0x20\nstosb\n",
        lambda: "in al, 0x61\nstosb\n",
        lambda: "rdtsc\nstosw\n",
        lambda: "int3\n",
        lambda: "mov dx, 0x3F8\nmov al, 'v'\nout dx, al\n",
        lambda: "mov dx, 0x3F9\nmov al, 2\nout dx, al\nmov al, 0\nout dx, al\n",
        lambda: out(0x43, chance.choice((0xC2, 0xE2, 0xD2))) + "in al, 0x40\nstosb\nin al, 0x40\nstosb\n",
        lambda: out(0x61, number(4)),
        lambda: out(0x21, 0) + "cli\nsti\nhlt\n",
        # the places at which an interrupt waits, or comes between what is one instruction
        lambda: f"push di\nmov di, 0x3000\nmov cx, {number(1, 900)}\nrep stosb\npop di\n",
        lambda: f"cli\nmov cx, {number(1, 300)}\nloop $\nsti\nnop\nnop\n",
        lambda: f"cli\nmov cx, {number(1, 300)}\nloop $\nsti\nmov ax, ss\nmov ss, ax\nnop\n",
        lambda: "mov ax, ss\n" + "mov ss, ax\nnop\n" * number(2, 20),
        lambda: f"pushf\ncli\nmov cx, {number(1, 300)}\nloop $\npopf\nnop\n",
        lambda: f"mov dx, 0x80\nmov si, 0x1000\nmov cx, {number(1, 60)}\nrep outsb\n",
        # IRQ 8, the slave's, each 122 us or 488 us until the third register is not read any more
        lambda: out(0x70, 0x0A) + out(0x71, chance.choice((0x23, 0x25))) + out(0x70, 0x0B) + out(0x71, 0x42),
        lambda: out(0x70, 0x0C) + "in al, 0x71\nstosb\n",
    ]
    rare: list[Callable[[], str]] = [
        lambda: out(0x40, number(2, 200)) + out(0x40, 0),
        lambda: out(0x43, chance.choice((0x34, 0x34, 0x34, 0x36, 0x30, 0x38, 0x14, 0x35)))
        + out(0x40, number(4, 120)) + out(0x40, 0),
        lambda: out(0x43, 0x34) + out(0x40, number(2, 60)) + out(0x40, 0),
        lambda: "call program\n",
        lambda: "cli\n" + out(0x20, chance.choice((0x11, 0x19))) + out(0x21, chance.choice((0x20, 0x40))) + out(0x21, 4)
        + out(0x21, chance.choice((1, 1, 3, 0x11))) + out(0x21, 0) + "sti\n",
        lambda: out(0x20, chance.choice((0x20, 0x60, 0x68, 0x48, 0xC3, 0xC7, 0xA0, 0x0C))),
        lambda: "in al, 0x20\nstosb\n",
        lambda: out(0x43, number(256)),
        lambda: out(0x21, number(256)) + f"mov cx, {number(1, 600)}\nloop $\n" + out(0x21, 0),
    ]  # fmt: skip
    return chance.choice(rare)() if number(8) == 0 else chance.choice(plain)()


def program(seed: int) -> str:
    chance = random.Random(seed)
    count = chance.choice((2, 3, 4, 9, 13, 30, 61, 300))
    turns = "".join(operation(chance) for _ in range(25))
    # mode 2 again: what a turn has done is not to be the end of all ticks
    again = "mov al, 0x34\nout 0x43, al\nmov al, COUNT & 255\nout 0x40, al\nmov al, COUNT >> 8\nout 0x40, al\n"
    defined = f"%define COUNT {count}\n%define TURNS 6\n"
    return defined + BEGIN + turns + chance.choice(("", again)) + END + chance.choice(HANDLERS) + "\n"


def plain(count: int, turns: int, handler: str = HANDLERS[0], turn: str = "mov cx, 1000\nloop $\n") -> str:
    return f"%define COUNT {count}\n%define TURNS {turns}\n{BEGIN}{turn}{END}{handler}\n"


#: The beginning of `timer`.
COUNTS = bytes.fromhex("50 ff060205")
#: Instructions, of programs that tick each few of them: what they do is seen by then.
LIMIT = 60_000


def made_in(name: str, body: str, **config: object) -> Debugger:
    with loop(name):
        made = debugger(rom(body), **config)
    assert made.machine.executor.run_loop == name
    made.set_limit(LIMIT)
    return made


def ending(made: Debugger) -> tuple[object, ...]:
    """All that the machine holds, and it is closed."""
    machine = made.machine
    # when a storm is noticed, which no guest sees, depends on when the journal hears of interrupts
    told = [(e.retired * (e.kind != "stuck"), e.kind, e.text) for e in machine.journal]
    seen = made.fingerprint(), machine.save().devices, machine.save().clock, told
    machine.close()
    return seen


def to_the_end(made: Debugger) -> tuple[object, ...]:
    made.begin_continue()
    stop = made.run()
    return stop.kind, stop.text, ending(made)
