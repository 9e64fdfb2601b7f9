"""Files of Xen as subjects: what is there is shown, what is not is unknown, nothing is written."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from emu.inspector import DebuggerError
from emu.onlooker import Onlooker
from emu.subject import MemoryUnavailable
from emu.x86.state import CpuState, Segment, Table
from emu.x86.vmentry import RULES
from xen_files import context, dump_core, real_mode, save_stream, several
from xen_samples import sample
from xenbridge.wire import core, xl
from xenbridge.wire.errors import WireError
from xenbridge.xen.files import FileError, open_file, parse_file
from xenbridge.xen.open_file import OpenFile


def onlooker(data):
    file = parse_file(data)
    return Onlooker(file, file.about)


# -- the real ones


@pytest.mark.parametrize("name", ["s_stream.bin", "s_hvmctx.bin"])
def test_a_real_stream_and_context_show_hidden_segment_state(name):
    debugger = onlooker(sample(name))
    es = next(view for view in debugger.segments() if view.name == "es")
    assert (es.selector, es.base, es.limit, es.access, es.unknown) == (0xD000, 0xD0000, 0xFFFF, 0x93, ())
    assert debugger.mode_label() == "real"
    assert debugger.linear_pc() == 0x7C8F


def test_a_real_stream_has_memory_code_and_vectors():
    debugger = onlooker(sample("s_stream.bin"))
    assert debugger.read_linear(0x7C00, 3) == bytes.fromhex("fa31c0")
    assert [i.text for i in debugger.disassemble(count=2)] == ["inc word ptr [0x610]", "jmp 0x7c8e"]
    assert debugger.ivt()[8].base == 0x7C9A
    assert debugger.readable(0x7FF0, 64) == 16
    with pytest.raises(MemoryUnavailable, match="0x8000"):
        debugger.read_linear(0x7FF0, 64)


def test_a_real_file_of_xl_is_the_same_as_its_stream():
    bare, wrapped = (onlooker(d) for d in (sample("s_stream.bin"), xl.build_xl(b"{}", sample("s_stream.bin"))))
    assert wrapped.cpu() == bare.cpu()
    assert wrapped.read_physical(0x600, 32) == bare.read_physical(0x600, 32)


def test_a_real_context_shows_the_devices_as_the_guest_programmed_them():
    debugger = onlooker(sample("s_hvmctx.bin"))
    fields = {f"{d.name} {f.name}": f for d in debugger.devices() for f in d.fields}
    assert fields["pic master IMR"].value == 0xDE
    assert fields["pic master base"].value == 8
    assert fields["pit counter 0"].text.startswith("mode 2 rate generator")
    assert fields["pit counter 0 CR"].value == 0x2000
    assert fields["pit counter 2"].value == "not programmed"
    assert fields["lapic LVT LINT0"].text == "vector 00h ExtINT"
    assert fields["hpet counter"].text == "16 ns"
    assert fields["header gtsc_khz"].value == 2596104


def test_what_no_record_says_is_unknown_and_not_guessed():
    debugger = onlooker(sample("s_hvmctx.bin"))
    fields = {f"{d.name} {f.name}": f.value for d in debugger.devices() for f in d.fields}
    assert fields["pit counter 0 CE"] == fields["lapic current count"] == "unknown"
    assert fields["pit counter 0 pins"] == "GATE=1 OUT unknown"


def test_a_context_has_no_memory():
    debugger = onlooker(sample("s_hvmctx.bin"))
    assert debugger.readable(0, 16) == 0
    with pytest.raises(DebuggerError, match="display belongs to the device model"):
        debugger.screen()


def test_a_real_core_has_registers_memory_and_no_hidden_state():
    debugger = onlooker(sample("s_dump.core"))
    assert debugger.read_register("rip") == 0x7C8F
    assert debugger.read_linear(0x7C00, 3) == bytes.fromhex("fa31c0")
    cs = next(view for view in debugger.segments() if view.name == "cs")
    assert cs.unknown == ("base", "limit", "access")
    assert cs.text == "unknown"
    assert debugger.linear_pc() is None
    assert debugger.registers().linear_pc is None


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda d: d.gdt(), "GDTR"),
        (lambda d: d.ldt(), "LDTR"),
        (lambda d: d.idt(), "IDTR"),
        (lambda d: d.ivt(), "IDTR"),
        (lambda d: d.disassemble(), "whether this is 16-, 32- or 64-bit code"),
        (lambda d: d.disassemble(bits=16), "the base of CS"),
        (lambda d: d.read_register("cs_base"), "cs_base"),
        (lambda d: d.read_register("ss_attr"), "ss_attr"),
        (lambda d: d.read_register("tr"), "tr"),
        (lambda d: d.read_register("pat"), "pat"),
        (lambda d: d.msrs(), "MSRS"),
        (lambda d: d.why(RULES["vtx"]), "the access of CS"),
    ],
)
def test_a_core_says_what_it_does_not_know(ask, what):
    with pytest.raises(DebuggerError, match=f"^{what} is unknown"):
        ask(onlooker(sample("s_dump.core")))


def test_a_core_is_disassembled_where_the_place_and_width_are_given():
    debugger = onlooker(sample("s_dump.core"))
    assert debugger.disassemble(0x7C00, 2, 16)[0].text == "cli"


# -- cores in other modes: what the architecture says is known

PAGED, PAE, VM = 0x80000011, 0x20, 0x20000


def test_a_core_in_v86_mode_has_the_bases_of_that_mode():
    debugger = onlooker(dump_core(ctrlreg=[1, *[0] * 7], rflags=VM | 2, cs=0x1234, ss=0x2000, rip=0x10))
    assert debugger.mode_label() == "virtual 8086"
    assert debugger.linear_pc() == 0x12350
    assert debugger.read_register("ss_base") == 0x20000
    with pytest.raises(DebuggerError, match="GDTR is unknown"):
        debugger.gdt()


def test_a_core_whose_rip_needs_64_bits_is_in_64_bit_mode():
    debugger = onlooker(dump_core(ctrlreg=[PAGED, 0, 0, 0x1000, PAE, 0, 0, 0], rip=0xFFFFFFFF80000000))
    assert debugger.mode_label() == "64-bit"
    assert debugger.linear_pc() == 0xFFFFFFFF80000000
    assert debugger.registers().registers[0].name == "rax"


def test_a_core_that_may_be_pae_or_ia_32e_walks_no_tables():
    debugger = onlooker(dump_core(ctrlreg=[PAGED, 0, 0, 0x1000, PAE, 0, 0, 0], rip=0x401000))
    assert debugger.mode_label() == "protected, code width unknown"
    for ask in (lambda: debugger.page_walk(0), lambda: debugger.read_linear(0, 1), lambda: debugger.translate(0)):
        with pytest.raises(DebuggerError, match="EFER is unknown"):
            ask()
    assert debugger.read_physical(0x7C00, 1) == b"\xfa"


def test_a_core_with_32_bit_tables_walks_them():
    debugger = onlooker(dump_core(ctrlreg=[PAGED, 0, 0, 0x7000, 0, 0, 0, 0], rip=0x401000, cs=8))
    assert debugger.page_walk(0).levels[0].address == 0x7000
    assert debugger.linear_pc() is None


@pytest.mark.parametrize(("cs", "base"), [(0x10, 0x2000), (0x13, 0x3000), (0x0C17, 0x3000), (0xF000, 0x2000)])
@pytest.mark.parametrize("cr0", [0x10, 0x11])
def test_the_bases_of_fs_and_gs_are_in_a_core(cr0, cs, base):
    """Where GS's is goes by CS's RPL alone, in real mode too (Xen, xen/arch/x86/domctl.c: ring_0)."""
    registers = {"fs_base": 0x1000, "gs_base_kernel": 0x2000, "gs_base_user": 0x3000, "cs": cs}
    debugger = onlooker(dump_core(ctrlreg=[cr0, 0, 0, 0, 0, 0, 0, 0], **registers))
    assert (debugger.read_register("fs_base"), debugger.read_register("gs_base")) == (0x1000, base)


# -- protected and long mode, from contexts built here


def flat64():
    state = CpuState(cr0=0x80000011, cr3=0x2000, cr4=0x20, efer=0x500, rip=0x1000)
    for name in ("ds", "es", "ss", "fs", "gs"):
        setattr(state, name, Segment(0x10, 0, 0xFFFFFFFF, 0xC093))
    state.cs = Segment(8, 0, 0xFFFFFFFF, 0xA09B)
    state.gdtr, state.idtr = Table(0x1800, 0x17), Table(0x1900, 0xFFF)
    return state


def page_tables():
    entries = struct.pack("<Q", 0x3003), struct.pack("<Q", 0x4003), struct.pack("<Q", 0x83)
    code = b"\x48\x31\xc0\xf4".ljust(0x800, b"\0")
    gdt = struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF)
    return {1: code + gdt, 2: entries[0], 3: entries[1], 4: entries[2]}


def test_a_stream_in_64_bit_mode_walks_its_page_tables_and_decodes_its_gdt():
    debugger = onlooker(save_stream(flat64(), page_tables()))
    assert debugger.mode_label() == "64-bit"
    walk = debugger.page_walk(0x1000)
    assert (walk.physical, walk.page_size, [level.level for level in walk.levels]) == (
        0x1000, 2 << 20, ["PML4E", "PDPTE", "PDE"],
    )  # fmt: skip
    assert debugger.disassemble(count=1)[0].text == "xor rax, rax"
    assert [entry.kind for entry in debugger.gdt()] == ["null", "code64", "data32"]
    cs = next(view for view in debugger.segments() if view.name == "cs")
    assert (cs.access, cs.table_access, cs.differs) == (0xA09B, 0xA09B, ())


@pytest.mark.parametrize("access", [0x93, 0xC093, 0xA09B, 0x409B, 0x1C0F3, 0x8B, 0x10082])
def test_access_rights_come_through_xens_packed_form(access):
    state = flat64()
    state.es.access = access
    seen = parse_file(context(state)).cpu_state().es.access
    present = access & ~0x80 if access & 0x10000 else access
    assert seen == (present | 0x10000 if not present & 0x80 else present)


# -- nothing is written, nothing runs


@pytest.mark.parametrize(
    "do",
    [
        lambda d: d.begin_continue(), lambda d: d.begin_step(), lambda d: d.begin_until(0),
        lambda d: d.write_register("rax", 1), lambda d: d.write_linear(0x600, b"x"),
        lambda d: d.write_physical(0x600, b"x"), lambda d: d.write_msr(0x277, 0), lambda d: d.reset(),
        lambda d: d.save(), lambda d: d.port_in(0x60), lambda d: d.port_out(0x60, 1, 0), lambda d: d.type_text("a"),
        lambda d: d.fingerprint(),
    ],
)  # fmt: skip
def test_what_would_run_or_write_is_refused(do):
    debugger = onlooker(sample("s_stream.bin"))
    before = debugger.read_physical(0, 0x8000)
    with pytest.raises(DebuggerError, match="this is only looked at"):
        do(debugger)
    assert not debugger.running
    assert debugger.read_physical(0, 0x8000) == before


# -- files that are none


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0", "neither a save stream, nor an HVM context, nor a core"),
        (b"hello world, this is no domain", "neither a save stream"),
        (b"\x1f\x8b\x08\0\0", "unpack it with gunzip"),
        (sample("s_stream.bin") + b"more", "4 bytes follow"),
        (sample("s_stream.bin")[:100], "X86_CPUID_POLICY, length at offset 0x2c"),
        (sample("s_dump.core")[:100], "ELF header, e_shoff"),
        (sample("s_hvmctx.bin")[:30], "HVM record header, length at offset 0x24|at offset"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_place(tmp_path, data, why):
    path = tmp_path / "domain.save"
    path.write_bytes(data)
    with pytest.raises(FileError, match=why) as caught:
        open_file(path)
    assert "domain.save" in str(caught.value)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(FileError, match="no regular file"):
            open_file(path)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileError, match="cannot be read"):
            open_file(path)


@pytest.mark.parametrize("name", ["s_stream.bin", "s_dump.core"])
def test_a_file_that_is_shortened_while_it_is_looked_at_is_said_to_be(tmp_path, name):
    path = tmp_path / "domain"
    path.write_bytes(sample(name))
    file = open_file(path)
    before = file.read_physical(0x7C00, 16)
    assert before == parse_file(sample(name)).read_physical(0x7C00, 16)
    os.truncate(path, 4096)
    with pytest.raises(DebuggerError, match=r"file at offset 0x[12]000: it has been shortened: it had 0x\w+ bytes"):
        file.read_physical(0, 0x8000)
    with pytest.raises(DebuggerError, match="shortened"):
        onlooking = Onlooker(file, file.about)
        onlooking.read_linear(0, 0x7000)
    assert file.cpu_state().rip


def test_any_part_of_a_file_that_is_open_is_that_of_its_bytes(tmp_path):
    data = bytes(n * 7 & 0xFF for n in range(0x9001))
    path = tmp_path / "bytes"
    path.write_bytes(data)
    file = OpenFile(path)
    assert len(file) == len(data)
    for start in (0, 1, 0x3FFF, 0x4000, 0x9000, 0x9001, 0x9002):
        for length in (0, 1, 8, 0x3FFF, 0x4000, 0x4001, 0x9001):
            assert file[start : start + length] == data[start : start + length]


def two(first=0, second=1):
    """A real mode vCPU at 0:7C00h, and one in 64-bit mode at 1000h."""
    return several((first, real_mode(0x7C00)), (second, flat64()))


def test_each_vcpu_is_listed_and_all_views_are_of_the_one_that_is_shown():
    debugger = onlooker(two())
    rows = [(v.number, v.shown, v.mode, v.selector, v.offset, v.linear_pc, v.cr3) for v in debugger.vcpus()]
    assert rows == [(0, True, "real", 0, 0x7C00, 0x7C00, 0), (1, False, "64-bit", 8, 0x1000, 0x1000, 0x2000)]
    assert debugger.last_stop.text == "HVM context, 2 vCPUs, of which 0 is shown"
    debugger.show_vcpu(1)
    assert [v.shown for v in debugger.vcpus()] == [False, True]
    assert (debugger.mode_label(), debugger.read_register("cr3")) == ("64-bit", 0x2000)
    assert "cpu" in {d.name for d in debugger.devices()} and "vCPU 1" in str(debugger.devices())
    assert debugger.last_stop.text == "HVM context, 2 vCPUs, of which 1 is shown"
    debugger.show_vcpu(0)
    assert debugger.mode_label() == "real"


def test_a_vcpu_that_was_offline_has_no_record_and_is_not_counted():
    debugger = onlooker(two(0, 2))
    assert [v.number for v in debugger.vcpus()] == [0, 2]
    with pytest.raises(DebuggerError, match="no vCPU 1: there are 0, 2"):
        debugger.show_vcpu(1)
    for numbers, asked, there in (((0, 2), 1, "0, 2"), ((200, 201), 0, "200, 201")):
        with pytest.raises(WireError, match=f"vCPU {asked} at offset 0x0: it was offline; the file has {there}$"):
            parse_file(two(*numbers), asked)
    assert parse_file(two(0, 2), 2).cpu_state().rip == 0x1000


def test_the_vcpus_of_a_core_are_shown_one_by_one():
    data = bytearray(sample("s_dump.core"))
    parsed = core.parse_core(data)
    at = len(data)
    contexts = b"".join(core.CONTEXT.build({**parsed.vcpus[0], "rip": rip}) for rip in (0x7C8F, 0x1234))
    for n, section in enumerate(parsed.sections):
        if section.name == ".xen_prstatus":
            place = parsed.header["e_shoff"] + n * core.SECTION.size
            data[place : place + 64] = core.SECTION.build({**section.head, "sh_offset": at, "sh_size": len(contexts)})
        if section.name == ".note.Xen":
            head = data.index(core.HVM_MAGIC.to_bytes(8, "little"), section.offset)
            data[head + 8] = 2
    debugger = onlooker(bytes(data) + contexts)
    assert [(v.number, v.offset, v.linear_pc) for v in debugger.vcpus()] == [(0, 0x7C8F, None), (1, 0x1234, None)]
    debugger.show_vcpu(1)
    assert debugger.read_register("rip") == 0x1234


def test_an_empty_file_is_said_to_be_one():
    with pytest.raises(WireError, match="file at offset 0x0: it is empty"):
        parse_file(b"")


def test_a_vcpu_that_is_not_there_is_refused():
    with pytest.raises(WireError, match="vCPU 1 at offset 0x0: the last one is 0"):
        parse_file(sample("s_hvmctx.bin"), 1)
