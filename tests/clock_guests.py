"""Guests that read a clock in a loop: what runs ends the loop, what stands still does not."""

from __future__ import annotations

from machines import TIMER_100US

#: Counter 0 of the 8254 as a rate generator of 65536, counters 1 and 2 likewise of 18, and the gate of counter 2 open.
COUNTERS = (
    "".join(
        f"mov al, {control:#x}\nout 0x43, al\nmov al, {low}\nout {port:#x}, al\nmov al, 0\nout {port:#x}, al\n"
        for control, port, low in ((0x34, 0x40, 0), (0x74, 0x41, 18), (0xB6, 0x42, 18))
    )
    + "mov al, 1\nout 0x61, al\n"
)
#: Registers A and B of the RTC: the divider runs, the time is kept.
RTC_RUNS = "".join(f"mov al, {n}\nout 0x70, al\nmov al, {v:#x}\nout 0x71, al\n" for n, v in ((10, 0x26), (11, 2)))
#: A handler of the tick, each 100 us, that counts the double word at {0}; interrupts are on.
COUNTED_TICKS = (
    "mov word [0x20], h\nmov word [0x22], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    + TIMER_100US
    + "sti\nmov ebx, 60000000\nw: cmp [{0}], ebx\njb w\nh: push ax\ninc dword [{0}]\nmov al, 0x20\nout 0x20, al\n"
    "pop ax\niret"
)
#: The VGA enabled, its registers at 3D4h and 3DAh.
VGA = "mov dx, 0x3c3\nmov al, 1\nout dx, al\nmov dx, 0x3c2\nmov al, 0x67\nout dx, al\nmov dx, 0x3da\n"
#: A handler of the tick that sets a flag when it has counted so many; another, which the flag waits for in vain.
FLAGGED_TICKS = (
    "mov word [0x20], h\nmov word [0x22], 0xf000\nmov ss, ax\nmov sp, 0x7000\n"
    + TIMER_100US
    + "sti\nw: cmp byte [0x9002], 1\njne w\ncli\nhlt\nh: push ax\ninc word [0x9000]\ncmp word [0x9000], {0}\njne k\n"
    "mov byte [0x9002], 1\nk: mov al, 0x20\nout 0x20, al\npop ax\niret"
)
#: (name, nasm text, verdict, parts of the summary, parts of the details)
CLOCKS: list[tuple[str, str, str, list[str], list[str]]] = [
    ("the refresh toggle", COUNTERS + "w: in al, 0x61\nand al, 0x10\ncmp al, ah\nje w\nmov ah, al\njmp w", "clock",
     ["the refresh toggle (bit 4 of port 61h"],
     ["port 0x61 (port61), which reads ", "counter 1 of the 8254) runs, and changes it by itself"]),
    ("the output of counter 2", COUNTERS + "w: in al, 0x61\ntest al, 0x20\njz w\nv: in al, 0x61\n"
     "test al, 0x20\njnz v\njmp w", "clock",
     ["bit 5 of port 61h"], []),
    ("the output of a one-shot that is over", COUNTERS + "mov al, 0xb0\nout 0x43, al\nmov al, 18\nout 0x42, al\n"
     "mov al, 0\nout 0x42, al\nmov cx, 60000\nd: loop d\nw: in al, 0x61\ntest al, 0x20\njnz w\nhlt", "waits",
     ["bit 5 of port 0x61 (port61)", "must become 0"],
     ["the output of counter 2 of the 8254 (bit 5 of port 61h) stands still: in mode 0 it has come to its end"]),
    ("the speaker's bit of port 61h", COUNTERS + "w: in al, 0x61\ntest al, 2\njz w", "waits",
     ["bit 1 of port 0x61 (port61)"], []),
    ("a counter that is latched", COUNTERS + "xor bx, bx\nw: mov al, 0\nout 0x43, al\nin al, 0x40\nmov ah, al\n"
     "in al, 0x40\nxchg al, ah\ncmp ax, bx\nja w\njmp w", "clock", ["counter 0 of the 8254"], []),
    ("a counter without a count", "mov al, 0x34\nout 0x43, al\nw: in al, 0x40\ntest al, 1\njz w\njmp w", "waits",
     ["port 0x40 (pit)"], ["counter 0 of the 8254 stands still: no count has been written since its control word"]),
    ("a counter with half of a count", "mov al, 0x34\nout 0x43, al\nmov al, 7\nout 0x40, al\nw: in al, 0x40\n"
     "test al, 1\njz w\njmp w", "waits", ["port 0x40 (pit)"], ["no count has been written"]),
    ("a counter with its gate closed", COUNTERS + "mov al, 0\nout 0x61, al\nin al, 0x42\nin al, 0x42\nmov ah, al\n"
     "w: in al, 0x42\nmov bl, al\nin al, 0x42\ncmp al, ah\nje w", "waits", ["port 0x42 (pit)"],
     ["its gate (bit 0 of port 61h) is low, and must be high"]),
    ("the time-stamp counter", "rdtsc\nmov ebx, eax\nmov ecx, edx\nw: rdtsc\nsub eax, ebx\nsbb edx, ecx\n"
     "cmp edx, 2\njb w", "clock", ["the time-stamp counter"], []),
    ("the time-stamp counter as an MSR", "mov ecx, 0x10\nw: rdmsr\ncmp edx, 2\njb w", "clock",
     ["the time-stamp counter"], []),
    ("the RTC's seconds", RTC_RUNS + "w: mov al, 0\nout 0x70, al\nin al, 0x71\ncmp al, 0x77\njne w", "clock",
     ["the real-time clock"], []),
    ("the RTC's update in progress", RTC_RUNS + "mov al, 10\nout 0x70, al\nw: in al, 0x71\ntest al, 0x80\njz w",
     "clock", ["the real-time clock"], []),
    ("the RTC's alarm", RTC_RUNS + "w: mov al, 1\nout 0x70, al\nin al, 0x71\ncmp al, 0x77\njne w", "waits",
     ["port 0x71 (rtc)"], []),
    ("the RTC's seconds while they are set", RTC_RUNS + "mov al, 11\nout 0x70, al\nmov al, 0x82\nout 0x71, al\n"
     "w: mov al, 0\nout 0x70, al\nin al, 0x71\ncmp al, 0x77\njne w", "waits", ["port 0x71 (rtc)"], []),
    ("the tick count, which runs", COUNTED_TICKS.format(0x46C), "clock", ["the tick count at 46Ch"], []),
    ("a poll of a device with a time-out by a clock", "rdtsc\nmov ebx, edx\nadd ebx, 2\nw: in al, 0x64\n"
     "test al, 1\njnz o\nrdtsc\ncmp edx, ebx\njb w\no: hlt", "clock", ["the time-stamp counter"],
     ["bit 0", "port 0x64 (kbc)", "  the time-stamp counter runs, and changes it by itself"]),
    ("a flag that the tick's handler sets", FLAGGED_TICKS.format(3000), "clock",
     ["waits for the handler of the interrupt with vector 0x08", "the byte at linear 0x9002", "must become 0x1"],
     ["comes again and again, and changes what is waited for within 29"]),
    ("a flag that the tick's handler never sets", FLAGGED_TICKS.format(3000).replace("inc word [0x9000]", "nop"),
     "waits", ["waits: the byte at linear 0x9002"], []),
    ("the vertical retrace", VGA + "w: in al, dx\ntest al, 8\njz w\nv: in al, dx\ntest al, 8\njnz v\njmp w", "clock",
     ["the vertical retrace (bit 3 of port 3DAh, the VGA's beam)"], []),
    ("the display's blanking", VGA + "w: in al, dx\nshr al, 1\njc w\nv: in al, dx\nshr al, 1\njnc v\njmp w", "clock",
     ["the display's blanking", "bit 0"], []),
    ("the vertical retrace at the other port", VGA + "mov dx, 0x3ba\nw: in al, dx\ntest al, 8\njnz w", "waits",
     ["bit 3 of port 0x3ba (vga)"], ["has the VGA at the other port, and must become 0"]),
    ("the VGA's reserved bit", VGA + "w: in al, dx\ntest al, 0x40\njz w", "waits", ["bit 6 of port 0x3da"], []),
    ("the RTC's interrupt flag", RTC_RUNS + "mov al, 11\nout 0x70, al\nmov al, 0x12\nout 0x71, al\nw: mov al, 12\n"
     "out 0x70, al\nin al, 0x71\ntest al, 0x80\njz w", "clock", ["the real-time clock"], []),
    ("the RTC's interrupt flag with none enabled", RTC_RUNS + "w: mov al, 12\nout 0x70, al\nin al, 0x71\n"
     "test al, 0x80\njz w", "waits", ["bit 7 of port 0x71 (rtc)"], ["register B enable no interrupt"]),
]  # fmt: skip
