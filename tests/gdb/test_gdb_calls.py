"""Functions of the guest's that gdb calls: `print f()`, `call`, `return` out of them, in a real gdb."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emu.firmware import tour
from machines import rom_text
from repl.harness import Gdb, GdbError, Server
from shared import once
from stub.gdb import helper_path

#: A multiboot kernel. `undefined` raises #UD where there is no IDT.
KERNEL = r"""
__attribute__((aligned(16))) unsigned char stack[4096];
__asm__(".globl _start\n"
        "_start: jmp begin\n"
        "        .balign 4\n"
        "        .long 0x1badb002, 0, -0x1badb002\n"
        "begin:  mov $stack + 4096, %esp\n"
        "        call kmain\n"
        "halt:   jmp halt\n");
#define APART __attribute__((noinline, used))
int calls;
APART int answer(void) { calls++; return 42; }
APART int twice(int a) { int r = answer(); calls++; return r + a * 2; }
APART void undefined(void) { __asm__ volatile("ud2"); }
APART void wait(int n) { for (volatile int i = 0; i < n; i++); }
struct __attribute__((packed)) table { unsigned short limit; unsigned base; };
unsigned tss[26];
unsigned long long tables[5] = {0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0, 0};
/* A GDT without the selectors of before, a segment of it in FS, none in GS, and a task register */
APART int install(void) {
    unsigned at = (unsigned)tss;
    struct table gdtr = {sizeof tables - 1, (unsigned)tables};
    tables[3] = (unsigned long long)(at >> 24) << 56 | (unsigned long long)(at & 0xffffff) << 16 | 0x0000890000000067;
    tables[4] = 0x00cf92345678ffff;
    __asm__ volatile("lgdt %0\n ltr %w1\n mov %w2, %%fs\n mov %w3, %%gs"
                     :: "m"(gdtr), "r"(0x18), "r"(0x20), "r"(0));
    return 6;
}
void kmain(void) { wait(100); calls = twice(1); wait(100); }
"""
HELPER = ["-x", str(helper_path())]
NONSTOP = ["-iex", "set non-stop on", "-iex", "set mi-async on"]
ways = pytest.mark.parametrize("arguments", [[], HELPER, NONSTOP, [*NONSTOP, *HELPER]],
                               ids=["stock", "helper", "non-stop", "non-stop-helper"])  # fmt: skip


def _built(folder: Path) -> Path:
    (folder / "k.c").write_text(KERNEL)
    options = "-m32 -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables -Og -g"
    for command in (f"gcc {options} -c k.c", "ld -m elf_i386 -n -Ttext 0x100000 -e _start -o k.elf k.o"):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return folder / "k.elf"


@pytest.fixture
def in_wait(
    arguments: list[str],
    v2e_server: Callable[..., Server],
    start_gdb: Callable[..., Gdb],
    tmp_path_factory: pytest.TempPathFactory,
) -> Gdb:
    """gdb in the kernel's `wait(100)`, with its symbols."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    kernel = once(tmp_path_factory, "the kernel of test_gdb_calls", _built)
    gdb = start_gdb(v2e_server("--kernel", kernel), arguments=arguments)
    gdb.cmd(f"symbol-file {kernel}")
    gdb.cmd("tbreak wait")
    gdb.cmd("continue")
    return gdb


def registers(gdb: Gdb) -> str:
    """All that the stub says, but how many instructions have retired."""
    gdb.cmd("maintenance flush register-cache")
    return "\n".join(line for line in gdb.cmd("info all-registers").splitlines() if not line.startswith("icount"))


def abandoned(gdb: Gdb, call: str) -> str:
    """Call what does not come back; gdb's words."""
    with pytest.raises(GdbError) as refused:
        gdb.cmd(call)
    gdb.running = False
    return str(refused.value)


@ways
def test_a_function_gives_its_value_and_all_registers_are_as_they_were(in_wait: Gdb) -> None:
    gdb = in_wait
    before, retired = registers(gdb), gdb.value("$icount")
    assert gdb.cmd("print answer()") == "$1 = 42\n"
    assert gdb.cmd("call twice(3)") == "$2 = 48\n"
    assert gdb.value("calls") == 3
    assert registers(gdb) == before
    assert gdb.value("$icount") > retired
    gdb.cmd("tbreak twice")
    gdb.cmd("continue")
    assert gdb.cmd("backtrace").startswith("#0  twice (a=1)")


@ways
def test_a_call_that_a_breakpoint_has_ended_is_left_by_return_continue_and_finish(in_wait: Gdb) -> None:
    gdb = in_wait
    before = registers(gdb)
    gdb.cmd("break answer")
    assert "stopped while in a function called from GDB" in abandoned(gdb, "call twice(4)")
    expected = ("answer", "twice (a=4)", "<function called", "wait")
    for line, part in zip(gdb.cmd("backtrace").splitlines(), expected, strict=False):
        assert part in line
    gdb.cmd("frame 1")
    gdb.cmd("return")  # out of the frame that gdb has made, too
    assert registers(gdb) == before
    abandoned(gdb, "call twice(4)")
    gdb.cmd("continue")
    assert registers(gdb) == before
    abandoned(gdb, "call twice(5)")
    assert "Value returned is" in gdb.cmd("finish")
    assert gdb.cmd("print $").endswith("= 42\n")
    gdb.cmd("finish")
    assert gdb.cmd("print $").endswith("= 52\n")
    assert registers(gdb) == before


@ways
def test_a_call_behind_a_return_goes_back_to_where_that_has_led(in_wait: Gdb) -> None:
    """`return` writes eip; gdb saves ip as it was before that, and writes it back."""
    gdb = in_wait
    gdb.cmd("return")
    behind = gdb.value("$pc")
    assert gdb.cmd("print answer()").endswith("= 42\n")
    gdb.cmd("maintenance flush register-cache")
    assert gdb.value("$pc") == behind == gdb.value("$ip")
    gdb.cmd("tbreak twice")
    gdb.cmd("continue")
    assert gdb.cmd("backtrace").startswith("#0  twice (a=1)")


@ways
def test_a_call_behind_a_changed_segment_register_keeps_its_base(in_wait: Gdb) -> None:
    gdb = in_wait
    gdb.cmd("set $fs = 0")
    before = registers(gdb)
    gdb.cmd("set $fs = 0x18")
    gdb.cmd("print answer()")
    gdb.cmd("set $fs = 0")
    gdb.cmd("print answer()")
    assert registers(gdb) == before


@ways
def test_a_call_that_loads_tables_and_selectors_of_its_own_gives_all_of_them_back(in_wait: Gdb) -> None:
    gdb = in_wait
    for setting in ("$fs = 0x18", "$gs_base = 0x1234"):
        gdb.cmd(f"set {setting}")
    before = registers(gdb)
    assert gdb.cmd("print install()").endswith("= 6\n")
    assert gdb.value("tables[3] >> 40 & 0xff") == 0x8B  # busy: the guest has loaded it
    assert registers(gdb) == before
    for setting in ("$tr.selector = 0x18", "$fs = 0x20"):  # a person's is loaded
        with pytest.raises(GdbError, match=r"cannot hold 0x00|beyond the GDT"):
            gdb.cmd(f"set {setting}")


@ways
def test_a_called_function_that_ends_by_a_fault_can_be_given_up(in_wait: Gdb) -> None:
    gdb = in_wait
    before = registers(gdb)
    gdb.cmd("set unwindonsignal on")
    assert "GDB has restored the context to what it was before the call" in abandoned(gdb, "call undefined()")
    assert registers(gdb) == before
    gdb.cmd("set unwindonsignal off")
    assert "GDB remains in the frame where the signal was received" in abandoned(gdb, "call undefined()")
    gdb.cmd("return")
    assert registers(gdb) == before
    assert gdb.cmd("print answer()").endswith("= 42\n")


@ways
def test_a_person_is_told_that_derived_registers_cannot_be_written(in_wait: Gdb) -> None:
    gdb = in_wait
    gdb.cmd("print answer()")
    gdb.cmd("maintenance flush register-cache")
    for setting, why in (
        ("$icount = 1", "icount says how many instructions have retired: it cannot be written"),
        ("$cpl = 3", "cpl is derived from other registers and cannot be written"),
        ("$mode = 16", "mode is derived from other registers and cannot be written"),
    ):
        with pytest.raises(GdbError, match=why):
            gdb.cmd(f"set {setting}")


@pytest.mark.slow
def test_64_bit_code_is_called(helped: Gdb) -> None:
    (place,) = (stop.linear for stop in tour.stops() if stop.name == "long64")
    gdb = helped
    gdb.cmd(f"hbreak *{place:#x}")
    gdb.cmd("continue")
    # inc dword [abs 9100h]; mov eax, 42; ret
    for at, byte in enumerate(bytes.fromhex("ff042500910000b82a000000c3")):
        gdb.cmd(f"set var *(unsigned char *){0x9000 + at:#x} = {byte}")
    gdb.cmd("set var *(int *)0x9100 = 7")
    before = registers(gdb)
    assert gdb.value("((int (*)(int, int))0x9000)(1, 2)") == 42
    assert (gdb.value("*(int *)0x9100"), registers(gdb)) == (8, before)
    gdb.cmd("break *0x900c")
    abandoned(gdb, "print ((int (*)(void))0x9000)()")
    gdb.cmd("return")
    assert registers(gdb) == before


#: A function behind a near call, at FE00h in segment 0, where the stack is, too.
NEAR = rom_text("""
        mov ss, ax
        mov es, ax
        mov sp, 0x7000
        mov si, code
        mov di, 0xfe00
        mov cx, 16
        cs rep movsb
        jmp 0:0xfe00
    code:
        inc word [0x500]
        mov eax, 42
        ret
""")


@pytest.mark.boot(firmware=NEAR)
@pytest.mark.parametrize("arguments", [[], HELPER], ids=["stock", "helper"])
def test_16_bit_code_is_called_where_cs_and_ss_have_the_base_0(
    arguments: list[str], v2e_server: Callable[..., Server], start_gdb: Callable[..., Gdb]
) -> None:
    gdb = start_gdb(v2e_server(), arguments=arguments)
    gdb.cmd("tbreak *0xfe00")
    gdb.cmd("continue")
    before = registers(gdb)
    assert gdb.value("((int (*)(void))0xfe00)()") == 42
    assert (gdb.value("*(short *)0x500"), registers(gdb)) == (1, before)


@pytest.mark.boot(firmware=NEAR)
def test_with_the_helper_icount_is_right_behind_a_call(v2e_server: Callable[..., Server]) -> None:
    """At gdb's prompt, by which the helper goes: there is none in `-batch`."""
    address = v2e_server().address
    gdb = shutil.which("gdb") or pytest.skip("gdb is not installed")
    typed = (f"target remote {address}", "tbreak *0xfe00", "continue", "output $icount", "echo \\n",
             "output ((int (*)(void))0xfe00)()", "echo \\n", "output $icount", "echo \\n")  # fmt: skip
    done = subprocess.run([gdb, "-nx", "-q", *HELPER], input="\n".join(typed), capture_output=True, text=True,
                          timeout=60, check=True)  # fmt: skip
    numbers = [
        int(line.replace("(gdb) ", "")) for line in done.stdout.splitlines() if line.replace("(gdb) ", "").isdigit()
    ]
    assert numbers == [numbers[0], 42, numbers[0] + 3]
