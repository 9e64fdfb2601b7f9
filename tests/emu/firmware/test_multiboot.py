"""Multiboot images, beside QEMU's own loader."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import oracles
from emu.debugger import Debugger
from emu.firmware import multiboot
from emu.firmware.payload import KernelError
from emu.machine import MachineConfig, build_machine
from emu.stops import StopKind

MIB = 1 << 20
MEMORY = 16 * MIB


def said(image: bytes) -> str:
    payload = multiboot.load("image", image, [("a", b"module\0"), ("b", b", another\0")], "one two", MEMORY)
    debugger = Debugger(build_machine(MachineConfig(memory=MEMORY, payload=payload)))
    debugger.set_limit(1_000_000)
    debugger.begin_continue()
    stop = debugger.run()
    assert (stop.kind, stop.exit_code) == (StopKind.EXIT, 0), stop.text
    return debugger.machine.debugcon_text()


def elf(image: bytes) -> bytes:
    """`image` as a 32-bit ELF file: one segment, its header's addresses left out (flag 16 cleared)."""
    at = multiboot.find_header(image)
    assert at is not None
    start, end, bss_end, entry = struct.unpack_from("<4I", image, at + 16)
    flags = 3
    body = bytearray(image)
    struct.pack_into("<3I", body, at, 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    head = b"\x7fELF\1\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0
    )
    return head + struct.pack("<8I", 1, 84, start, start, end - start, bss_end - start, 7, 4) + bytes(body)


@pytest.mark.parametrize("form", [bytes, elf])
def test_an_image_is_handed_what_qemus_loader_hands_it(form: type, tmp_path: Path):
    image = form(oracles.assemble_image("multiboot"))
    for name, text in (("image", image), ("a", b"module\0"), ("b", b", another\0")):
        (tmp_path / name).write_bytes(text)
    arguments = ["-kernel", f"{tmp_path}/image", "-initrd", f"{tmp_path}/a,{tmp_path}/b", "-append", "one two"]
    try:
        theirs = oracles.run_qemu(arguments=arguments).debugcon
    except oracles.OracleMissing as missing:
        pytest.skip(str(missing))
    assert said(image) == theirs
    assert theirs.startswith("2BADB002 0000004D ")
    assert " two module, another" in theirs


def test_a_reset_starts_the_image_anew():
    payload = multiboot.load("image", oracles.assemble_image("multiboot"), [], "", MEMORY)
    machine = build_machine(MachineConfig(memory=MEMORY, payload=payload))
    machine.run(50)
    machine.write_physical(0x100000, bytes(64))
    machine.request_reset("cpu")
    machine.service()
    assert machine.executor.linear_pc == payload.state.rip
    assert machine.read_physical(0x100000, 12) == struct.pack("<3I", 0x1BADB002, 0x10003, 0xE4514FFB)


def test_images_that_cannot_be_started_are_refused_in_a_sentence():
    image = oracles.assemble_image("multiboot")
    bad = bytearray(image)
    struct.pack_into("<3I", bad, 0, 0x1BADB002, 0x10013, -(0x1BADB002 + 0x10013) & 0xFFFFFFFF)
    for data, memory, says in (
        (b"hello" * 100, MEMORY, "no multiboot header"),
        (bytes(8192) + image, MEMORY, "no multiboot header"),
        (bytes(bad), MEMORY, "features 0x10"),
        (image[:-20], MEMORY, "is truncated"),
        (elf(image)[:-20], MEMORY, "is truncated"),
        (image, MIB, "not free RAM"),
        (b"\0" * 4 + elf(image), MEMORY, "no ELF file"),
    ):
        with pytest.raises(KernelError, match=says) as caught:
            multiboot.load("k", data, [], "", memory)
        assert "\n" not in str(caught.value)


def test_a_module_larger_than_memory_names_the_memory_it_needs():
    with pytest.raises(KernelError, match="--memory 22M or more"):
        multiboot.load("k", oracles.assemble_image("multiboot"), [("m", bytes(20 * MIB))], "", MEMORY)
