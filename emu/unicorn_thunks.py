"""The x86-64 machine code that Unicorn calls before each instruction and for each exception.

Three callbacks must not be Python: the *gate*, because it runs before every instruction, and the two deliveries,
because the engine leaves them by longjmp when delivering an exception faults in turn. They are position-independent
byte strings with the addresses they need patched in; Python steers the gate through `emu.unicorn_control.Control`.

The gate decides, before an instruction, in this order:

1. Is this a restart? A store into the running translation makes the engine drop it and execute the instruction again,
   so the gate is called twice. It is one when address, RCX and RSP are those of the instruction counted last while
   translations have been dropped since; its count is taken back. (A repeated string instruction changes RCX, a call
   of itself RSP.)
2. Something that watchpoints depend on has changed (DR7; with any set, CR0, CR3, CR4, DR0 to DR3): stop the engine, to
   be resumed at once. A data breakpoint of the guest's was met: raise #DB here, a trap behind its instruction.
3. `remaining` is 0, or a stop is asked for: stop the engine. Nothing of the instruction has happened yet.
   In the shadow of STI or of a load of SS Python is asked first whether it is one (`emu.unicorn_shadow`).
4. An interrupt is pending, EFLAGS.IF is set and no STI or MOV SS shadow is on: raise the engine's own request for it
   and leave the translation, so that it is delivered here, wherever translations and slices begin and end. Behind an
   iteration of a repeated instruction EIP and RF are put right first (`emu.unicorn_faults`), and the translation is
   left with them, not back to the instruction.
5. The address is in the table of breakpoints (and not skipped once): stop.
6. Count it. If the segment caches are not those for which `checks` was decided, `checks` is set, or ES, SS or DS has a
   base in 64-bit code (`emu.unicorn_bases`), ask the checker;
   an exception that it answers is raised in place of the instruction (`emu.unicorn_checks`). In a single step, also
   ask the engine's main loop to return with the error STEP_DONE: it looks when the translation of this one instruction
   has ended, before it translates what follows.
"""

from __future__ import annotations

import ctypes
import mmap

from emu.unicorn_control import (
    CHECKED_MODE,
    HASH,
    INSTEAD,
    STEP_DONE,
    STOP_ASKED,
    STOP_BREAKPOINT,
    STOP_BUDGET,
    STOP_CHANGED,
    offset,
)
from emu.unicorn_layout import HF_CS64, HF_INHIBIT_IRQ, PORTABLE_LENGTH
from emu.x86.operands import DS, ES, SS

#: P, S and the type without the busy bit, of a descriptor cache; a present TSS of 32 and 64 bits, and of 16 (SDM
#: vol. 3A, table 3-2).
TASK_BITS, TASK_32, TASK_16, TASK_BUSY = 0x9D00, 0x8900, 0x8100, 0x200


class Code:
    """A few instructions being put together: bytes, labels, and short or near jumps to labels."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def add(self, text: str, *values: int | bytes) -> Code:
        """Opcode bytes in hex; an int in `values` follows as one byte, bytes as they are."""
        self._out += bytes.fromhex(text)
        for value in values:
            self._out += value if isinstance(value, bytes) else bytes((value & 0xFF,))
        return self

    def label(self, name: str) -> Code:
        self._labels[name] = len(self._out)
        return self

    def jump(self, condition: str, label: str) -> Code:
        """`condition` is one of jmp, je, jne, jbe; always the near form, rel32."""
        self._out += {"jmp": b"\xe9", "je": b"\x0f\x84", "jne": b"\x0f\x85", "jbe": b"\x0f\x86"}[condition] + bytes(4)
        self._jumps.append((len(self._out) - 4, label))
        return self

    def bytes(self) -> bytes:
        for at, label in self._jumps:
            self._out[at : at + 4] = (self._labels[label] - at - 4).to_bytes(4, "little", signed=True)
        return bytes(self._out)


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def _s32(value: int) -> bytes:
    return value.to_bytes(4, "little", signed=True)


def _leave_by(c: Code, env: int, cpu: int, raise_exception: int, leave: int) -> None:
    """Act on the answer in rax: 0 goes to the label `checked`; INSTEAD leaves the translation for where EIP is now; any
    other raises the vector in its low byte with the error code in its high half."""
    c.add("4885c0").jump("je", "checked")
    c.add("483d", _s32(INSTEAD)).jump("jne", "raise")  # cmp rax, INSTEAD
    c.add("48bf", _u64(cpu)).add("48b8", _u64(leave)).add("ffe0")  # jmp cpu_loop_exit_noexc(cpu)
    c.label("raise")
    c.add("48bf", _u64(env))  # mov rdi, env
    c.add("0fb6f0").add("48c1e820").add("89c2")  # movzx esi, al; shr rax, 32; mov edx, eax
    c.add("48b8", _u64(raise_exception)).add("ffe0")  # leaves by longjmp


def gate(
    *,
    control: int,
    repeat: int,
    env: int,
    invalidated: int,
    emu_stop: int,
    cpu: int,
    raise_exception: int,
    leave: int,
    eflags: int,
    hflags: int,
    segs: int,
    cr: int,
    dr: int,
    error_code: int,
    exception: int,
    request: int,
    exit_request: int,
    invalid_error: int,
    task: int,
    length: int,
    divide: int,
    shadow: int,
) -> bytes:
    """The CODE hook `(uc, address, size, user_data)`.

    Addresses: `control`; `repeat`, called for an interrupt that comes before the instruction executed last; `env`;
    `invalidated`, the count of dropped translations; `emu_stop`; `cpu`; `raise_exception`; `leave`
    (cpu_loop_exit_noexc); `divide`, asked while EDX:EAX is -2**63 (`emu.unicorn_division`); `shadow`, asked of
    an instruction that is in a shadow (`emu.unicorn_shadow`). Offsets from env: `eflags`,
    `hflags`, `segs` (the segment caches), `cr` (CR0), `dr` (DR0), `error_code`, `exception` (exception_index),
    `request` (interrupt_request), `exit_request`, `task` (the task register's cache), `length`
    (cflags_next_tb: how long the next translation may be, wherever it is). Offset from uc: `invalid_error`. The
    high half of the decrementer that makes translations give way is at env - 14.

    Registers: rdi uc, rsi address, rcx control, r8 env, rax invalidated, r9 RCX, r10 RSP of the guest.
    """
    c = Code()
    c.add("48b9", _u64(control))  # mov rcx, control
    c.add("49b8", _u64(env))  # mov r8, env
    c.add("48a1", _u64(invalidated))  # mov rax, [invalidated]
    c.add("4d8b48", 8)  # mov r9, [r8+8]
    c.add("4d8b50", 32)  # mov r10, [r8+32]
    c.add("41c780", _s32(length), _s32(PORTABLE_LENGTH))  # mov dword [r8+length], PORTABLE_LENGTH
    # exception_is_int, behind the error code, outlives an INT, and Unicorn would move EIP by it at the next intercept
    c.add("41c780", _s32(error_code + 4), bytes(4))  # mov dword [r8+error_code+4], 0
    # A stack of an inner ring taken from a task register without a task ends the process: it gets a task of no bytes,
    # from which Unicorn raises #TS. RSM and LTR of a null selector leave such a register.
    c.add("418b90", _s32(task + 20)).add("81e2", _s32(TASK_BITS))  # mov edx, [r8+flags]; and edx, TASK_BITS
    for kind in (TASK_32, TASK_16):
        c.add("81fa", _s32(kind)).jump("je", "task")  # cmp edx, kind
    c.add("41c780", _s32(task + 16), bytes(4))  # mov dword [r8+limit], 0
    c.add("41c780", _s32(task + 20), _s32(TASK_32 | TASK_BUSY))  # mov dword [r8+flags], a busy one
    c.label("task")
    c.add("483b71", offset("last")).jump("je", "same")  # cmp rsi, [last]
    c.label("fresh")
    c.add("8b51", offset("dr7")).add("413b90", _s32(dr + 56)).jump("jne", "changed")  # mov edx, [dr7]; cmp edx, [DR7]
    c.add("488379", offset("remaining"), 0).jump("je", "budget")  # cmp qword [remaining], 0
    c.add("41f680", _s32(hflags), HF_INHIBIT_IRQ).jump("jne", "shadow")  # test byte [r8+hflags], HF_INHIBIT_IRQ
    c.label("looked")
    c.add("488379", offset("stop"), 0).jump("jne", "attention")  # cmp qword [stop...], 0
    c.label("go")
    c.add("48ff49", offset("remaining"))  # dec [remaining]
    c.add("488971", offset("last"))  # mov [last], rsi
    c.add("49b8", _u64(env))  # mov r8, env: the search has used it
    c.add("418a90", _s32(eflags + 1)).add("8851", offset("flags_before"))  # mov dl, [r8+eflags+1]; mov [...], dl
    c.add("c641", offset("hold"), 0)
    c.add("488941", offset("invalidated"))  # mov [invalidated], rax
    c.add("4c8949", offset("rcx"))  # mov [rcx], r9
    c.add("4c8951", offset("rsp"))  # mov [rsp], r10
    for i in range(6):
        c.add("498b90", _s32(segs + 24 * i + 16))  # mov rdx, [r8+limit and flags]
        c.add("483b91", _s32(offset("caches") + 8 * i)).jump("jne", "check")  # cmp rdx, [copy]
    c.add("418b90", _s32(hflags)).add("81e2", _s32(CHECKED_MODE))  # mov edx, [r8+hflags]; and edx, CHECKED_MODE
    c.add("3b91", _s32(offset("mode"))).jump("jne", "check")
    c.add("80b9", _s32(offset("checks")), 0).jump("jne", "check")
    c.add("81e2", _s32(HF_CS64)).jump("je", "checked")  # and edx, HF_CS64
    for number, opcode in ((ES, "498b90"), (SS, "490b90"), (DS, "490b90")):  # mov or or rdx, [r8+base]
        c.add(opcode, _s32(segs + 24 * number + 8))
    c.jump("jne", "check")
    c.jump("jmp", "checked")

    # rax = checker(uc, address)
    c.label("check")
    c.add("488b81", _s32(offset("checker")))  # mov rax, [checker]
    c.add("4885c0").jump("je", "checked")
    c.add("4883ec08").add("ffd0").add("4883c408")  # sub rsp, 8; call rax; add rsp, 8
    _leave_by(c, env, cpu, raise_exception, leave)
    c.label("checked").add("49b8", _u64(env))  # mov r8, env
    c.add("41833800").jump("jne", "done")  # cmp dword [r8], 0: EAX
    c.add("41817810", _s32(-(1 << 31))).jump("jne", "done")  # cmp dword [r8+16], 80000000h: EDX
    c.add("4883ec08").add("48b8", _u64(divide)).add("ffd0").add("4883c408")  # sub rsp, 8; call divide; add rsp, 8
    c.add("4885c0").jump("je", "done")
    c.add("48bf", _u64(env)).add("31f631d2")  # mov rdi, env; xor esi, esi: #DE; xor edx, edx
    c.add("48b8", _u64(raise_exception)).add("ffe0")  # leaves by longjmp
    c.label("done").add("c3")

    c.label("same")
    c.add("483b41", offset("invalidated")).jump("je", "fresh")  # cmp rax, [invalidated]
    c.add("4c3b49", offset("rcx")).jump("jne", "fresh")
    c.add("4c3b51", offset("rsp")).jump("jne", "fresh")
    c.add("48ff41", offset("remaining"))  # inc [remaining]
    c.add("488971", offset("skip"))  # its breakpoint was checked the first time
    c.add("4c8951", offset("skip_rsp"))
    c.jump("jmp", "fresh")

    c.label("shadow")
    c.add("575651").add("4150").add("50").add("4151").add("4152")  # push rdi, rsi, rcx, r8, rax, r9, r10
    c.add("48b8", _u64(shadow)).add("ffd0").add("4885c0")  # call shadow; test rax, rax
    c.add("415a").add("4159").add("58").add("4158").add("595e5f").jump("je", "looked")  # pop them
    c.add("41c780", _s32(length), _s32(1))  # mov dword [r8+length], 1: as a step wants it
    c.add("48bf", _u64(cpu)).add("48b8", _u64(leave)).add("ffe0")  # jmp cpu_loop_exit_noexc(cpu)

    c.label("attention")
    c.add("8079", offset("trap"), 0).jump("jne", "trap")
    c.add("668379", offset("stop"), 0).jump("jne", "asked")  # cmp word [stop, halt_run], 0
    c.add("8079", offset("interrupt"), 0).jump("je", "no_interrupt")
    c.add("41f780", _s32(eflags), _s32(0x200)).jump("je", "no_interrupt")  # IF
    c.add("41f680", _s32(hflags), HF_INHIBIT_IRQ).jump("jne", "no_interrupt")
    c.add("8079", offset("hold"), 0).jump("jne", "no_interrupt")
    c.add("483b71", offset("last")).jump("jne", "interrupt")  # cmp rsi, [last]
    c.add("51").add("4150").add("56")  # push rcx; push r8; push rsi
    c.add("48b8", _u64(repeat)).add("ffd0").add("5e").add("4158").add("59")  # call repeat; pop rsi; pop r8; pop rcx
    c.label("interrupt")
    c.add("c641", offset("interrupt"), 0)
    c.add("c641", offset("taken"), 1)
    c.add("c641", offset("halt_run"), 1)  # stop at the handler's first instruction: the controller must learn of it
    c.add("8b51", offset("vector")).add("8851", offset("taken_vector"))  # mov edx, [vector]; mov [taken_vector], dl
    c.add("418188", _s32(request), _s32(0x100))  # or dword [r8+request], CPU_INTERRUPT_VIRQ
    c.add("483b71", offset("last")).jump("jne", "give_way")  # cmp rsi, [last]
    c.add("c641", offset("step"), 0)  # what gives way goes back to the instruction, which may have ended
    c.add("48bf", _u64(cpu)).add("48b8", _u64(leave)).add("ffe0")  # jmp cpu_loop_exit_noexc(cpu)
    c.label("give_way")
    c.add("c641", offset("step"), 0)  # the instruction will be met again in a longer translation: stop behind that
    c.add("6641c740f2ffff")  # mov word [r8-14], -1
    c.add("c3")

    c.label("no_interrupt")
    c.add("8079", offset("leave"), 0).jump("je", "no_leave")
    c.add("c641", offset("leave"), 0).jump("jmp", "give_way")

    c.label("no_leave")
    c.add("8079", offset("paging"), 0).jump("je", "no_paging")
    copies = [(offset("cr0"), cr), (offset("cr3"), cr + 24), (offset("cr4"), cr + 32)]
    for copy, live in copies + [(offset("dr") + 8 * i, dr + 8 * i) for i in range(4)]:
        c.add("498b90", _s32(live))  # mov rdx, [r8+live]
        c.add("483b91", _s32(copy)).jump("jne", "changed")  # cmp rdx, [copy]
    c.label("no_paging")
    c.add("8079", offset("breakpoints"), 0).jump("je", "pass")
    c.add("4889f2")  # mov rdx, rsi
    c.add("41f780", _s32(hflags), _s32(0x8000))  # HF_CS64: elsewhere linear addresses have 32 bits
    c.add("750289d2")  # jne +2; mov edx, edx
    c.add("483b51", offset("skip")).jump("jne", "look_up")
    c.add("4c3b51", offset("skip_rsp")).jump("jne", "look_up")
    c.add("48c741", offset("skip"), _s32(-1))
    c.label("pass")
    c.add("8079", offset("step"), 0).jump("je", "go")
    c.add("49b8", _u64(env))  # mov r8, env: the search has used it
    c.add("41c680", _s32(exit_request), 1)  # mov byte [r8+exit_request], 1
    c.add("c787", _s32(invalid_error), _s32(STEP_DONE)).jump("jmp", "go")  # mov dword [rdi+invalid_error], STEP_DONE
    c.label("look_up")
    c.add("49bb", _u64(HASH))  # mov r11, HASH
    c.add("4c0fafda")  # imul r11, rdx
    c.add("49c1eb20")  # shr r11, 32
    c.add("4c8b41", offset("table"))  # mov r8, [table]
    c.label("probe")
    c.add("4c2359", offset("mask"))  # and r11, [mask]
    c.add("4b3914d8").jump("je", "hit")  # cmp [r8+r11*8], rdx
    c.add("4b833cd8ff").jump("je", "pass")  # cmp qword [r8+r11*8], -1
    c.add("49ffc3").jump("jmp", "probe")  # inc r11

    c.label("trap")
    c.add("c641", offset("trap"), 0)
    c.add("41c780", _s32(exception), _s32(1))  # mov dword [r8+exception_index], #DB
    c.add("41c780", _s32(error_code), _s32(0))
    c.add("41c780", _s32(error_code + 4), _s32(0)).jump("jmp", "give_way")  # exception_is_int

    c.label("budget")
    c.add("8079", offset("trap"), 0).jump("jne", "trap")
    for label, reason in (
        ("spent", STOP_BUDGET), ("hit", STOP_BREAKPOINT), ("asked", STOP_ASKED), ("changed", STOP_CHANGED),
    ):  # fmt: skip
        c.label(label).add("c741", offset("reason"), _s32(reason)).jump("jmp", "quit")
    c.label("quit")
    c.add("48b8", _u64(emu_stop)).add("ffe0")  # uc_emu_stop(uc): the check behind this hook leaves at once
    return c.bytes()


def deliver_exception(*, control: int, cpu: int, do_interrupt: int, env: int, refusal: int, raise_: int) -> bytes:
    """The INTR hook `(uc, number, user_data)`: deliver the CPU's pending exception through the IVT or IDT, unless
    `Control.suppress` says that a later run will meet it again, that it has been delivered, or (2) that the vector and
    code at `refusal` are raised instead."""
    c = Code()
    c.add("48b8", _u64(control))  # mov rax, control
    c.add("8078", offset("suppress"), 0).jump("jne", "out")  # cmp byte [suppress], 0
    c.add("48bf", _u64(cpu))  # mov rdi, cpu
    c.add("48b8", _u64(do_interrupt)).add("ffe0")  # jmp x86_cpu_do_interrupt
    _refuse(c, env, refusal, raise_)
    c.label("return").add("c3")
    return c.bytes()


def breakpoint_handler(*, callback: int, env: int, raise_exception: int, original: int) -> bytes:
    """In place of `original`, of the CPU as well: on an answer of `callback` other than 0 it raises #DB, by longjmp."""
    c = Code()
    c.add("57").add("48b8", _u64(callback)).add("ffd0").add("5f")  # push rdi; call callback; pop rdi
    c.add("85c0").jump("je", "original")  # test eax, eax
    c.add("48bf", _u64(env)).add("be01000000").add("31d2")  # mov rdi, env; mov esi, #DB; xor edx, edx
    c.add("48b8", _u64(raise_exception)).add("ffe0")
    c.label("original").add("48b8", _u64(original)).add("ffe0")
    return c.bytes()


def system_hook(*, callback: int, operation: int, env: int, raise_exception: int) -> bytes:
    """An INSN hook that asks `callback(operation, 0)` (`emu.unicorn_system`): on 0 it says that the instruction is
    done, on anything else it raises that exception and leaves by longjmp."""
    c = Code()
    c.add("4883ec08")  # sub rsp, 8: keep the stack aligned at the call
    c.add("bf", _s32(operation)).add("31f6")  # mov edi, operation; xor esi, esi
    c.add("48b8", _u64(callback)).add("ffd0")  # call callback
    c.add("4885c0").jump("jne", "raise")  # test rax, rax
    c.add("b801000000").add("4883c408c3")  # mov eax, 1; add rsp, 8; ret
    c.label("raise")
    c.add("48bf", _u64(env))  # mov rdi, env
    c.add("0fb6f0").add("48c1e820").add("89c2")  # movzx esi, al; shr rax, 32; mov edx, eax
    c.add("48b8", _u64(raise_exception)).add("ffd0")
    return c.bytes()


def deliver_invalid(*, control: int, cpu: int, do_interrupt: int, env: int, refusal: int, raise_: int) -> bytes:
    """The INSN_INVALID hook `(uc, user_data) -> bool`: deliver #UD likewise, and say that it was handled."""
    c = Code()
    c.add("4883ec08")  # sub rsp, 8: keep the stack aligned at the call
    c.add("48b8", _u64(control))
    c.add("8078", offset("suppress"), 0).jump("jne", "out")
    c.add("48bf", _u64(cpu))  # mov rdi, cpu
    c.add("48b8", _u64(do_interrupt)).add("ffd0")  # call x86_cpu_do_interrupt
    c.jump("jmp", "return")
    _refuse(c, env, refusal, raise_)
    c.label("return")
    c.add("b801000000")  # mov eax, 1
    c.add("4883c408c3")  # add rsp, 8; ret
    return c.bytes()


def _refuse(c: Code, env: int, refusal: int, raise_: int) -> None:
    """At `out`, with control in rax: raise what is at `refusal`, by longjmp, if suppress is 2; else to `return`."""
    c.label("out").add("8078", offset("suppress"), 2).jump("jne", "return")
    c.add("48b8", _u64(refusal)).add("8b30").add("8b5004")  # mov esi, [rax]; mov edx, [rax+4]
    c.add("48bf", _u64(env)).add("48b8", _u64(raise_)).add("ffd0")  # call raise_exception_err


def port_check(*, env: int, eflags: int, hflags: int, checks: tuple[int, int, int], callback: int) -> bytes:
    """An IN or OUT hook `(uc, port, size, ...)` that goes on to `callback`, but asks the TSS's I/O permission bitmap
    first where CPL > IOPL or in V86 mode (SDM vol. 1, 19.5). `checks` are the addresses of the engine's functions
    `(env, port)` for 1, 2 and 4 bytes, which leave by longjmp to raise #GP(0): hence machine code."""
    c = Code()
    c.add("48b8", _u64(env))  # mov rax, env
    c.add("f680", _s32(hflags), 0x80).jump("je", "go")  # test byte [rax+hflags], HF_PE
    c.add("448b90", _s32(eflags))  # mov r10d, [rax+eflags]
    c.add("41f7c2", _s32(1 << 17)).jump("jne", "check")  # VM
    c.add("448b88", _s32(hflags)).add("4183e103")  # mov r9d, [rax+hflags]; and r9d, 3: CPL
    c.add("41c1ea0c").add("4183e203")  # shr r10d, 12; and r10d, 3: IOPL
    c.add("4539d1").jump("jbe", "go")  # cmp r9d, r10d
    c.label("check")
    c.add("5756525141504889c7")  # push rdi, rsi, rdx, rcx, r8 (the stack is aligned then); mov rdi, rax
    c.add("48b8", _u64(checks[0])).add("83fa01").jump("je", "call")  # cmp edx, 1
    c.add("48b8", _u64(checks[1])).add("83fa02").jump("je", "call")
    c.add("48b8", _u64(checks[2]))
    c.label("call").add("ffd0").add("4158595a5e5f")  # call rax; pop r8, rcx, rdx, rsi, rdi
    c.label("go").add("48b8", _u64(callback)).add("ffe0")  # jmp callback
    return c.bytes()


class CodePages:
    """Executable memory for the thunks, freed with the object."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._base = ctypes.addressof(ctypes.c_uint8.from_buffer(self._map))
        self._used = 0

    def place(self, code: bytes) -> int:
        """Copy `code` in; returns its address. Raises ValueError when the page is full."""
        at = -(-self._used // 16) * 16
        if at + len(code) > len(self._map):
            raise ValueError(f"{len(code)} bytes of machine code do not fit behind {at}")
        self._map[at : at + len(code)] = code
        self._used = at + len(code)
        return self._base + at
