"""The Linux boot protocol: what is accepted, and where it is placed; tests/boots has kernels boot
to their userspace."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bzimage import bzimage
from emu.firmware import linux
from emu.firmware.kernels import load_kernel
from emu.firmware.payload import KernelError, Payload

MIB = 1 << 20


def piece(payload: Payload, address: int) -> bytes:
    return next(data for at, data in payload.pieces if at == address)


def test_the_cpu_is_as_the_32_bit_protocol_asks():
    state = linux.load("k", bzimage(), b"", "", 32 * MIB).state
    assert state.linear_pc == 0x100000
    assert state.cr0 & 0x80000001 == 1
    assert not state.rflags & 0x200
    assert (state.cs.selector, state.ds.selector, state.es.selector, state.ss.selector) == (0x10, 0x18, 0x18, 0x18)
    assert {(s.base, s.limit) for s in (state.cs, state.ds, state.es, state.ss)} == {(0, 0xFFFFFFFF)}
    assert state.regs[6] == linux.ZERO_PAGE
    assert (state.regs[3], state.regs[5], state.regs[7]) == (0, 0, 0)


def test_the_gdt_holds_what_the_caches_say():
    payload = linux.load("k", bzimage(), b"", "", 32 * MIB)
    table = piece(payload, payload.state.gdtr.base)
    # flat, 4 KiB granularity, 32-bit; code execute/read and data read/write, accessed (SDM vol. 3A, figure 3-8)
    assert struct.unpack("<4Q", table)[2:] == (0x00CF9B000000FFFF, 0x00CF93000000FFFF)


def test_the_zero_page_says_where_everything_is():
    payload = linux.load("k", bzimage(), b"ramdisk", "quiet splash", 32 * MIB)
    page = piece(payload, linux.ZERO_PAGE)
    assert page[0x1F1:0x210] == bzimage()[0x1F1:0x210]
    assert page[0x210] == 0xFF
    assert piece(payload, struct.unpack_from("<I", page, 0x228)[0]) == b"quiet splash\0"
    image, size = struct.unpack_from("<II", page, 0x218)
    assert (piece(payload, image), size) == (b"ramdisk", 7)
    assert image == 32 * MIB - 4096
    assert not any(page[0x1E9:0x1F1]), "the sentinel and what precedes it stay zero"
    ranges = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(page[0x1E8])]
    assert ranges == [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (0x100000, 31 * MIB, 1)]


def test_the_name_is_the_kernels_own():
    assert linux.load("k", bzimage(), b"", "", 32 * MIB).name == "Linux 6.1.0-test"


def test_no_setup_sectors_are_four():
    image = bytearray(bzimage(setup_sects=4))
    image[0x1F1] = 0
    assert linux.parse("k", bytes(image)).setup == 5 * 512


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (b"MZ" + bytes(5000), "no Linux setup header"),
        (bzimage()[:0x210], "no Linux setup header"),
        (bzimage(version=0x0201), "boot protocol 2.01"),
        (bzimage(loadflags=0), "a zImage"),
        (bzimage()[:-16], "is truncated: it has 6640 bytes and its header asks for 6656"),
        (bzimage()[:2560], "is truncated"),
        (bzimage(init_size=64 * MIB), "give --memory 80M or more"),
    ],
)
def test_what_cannot_be_started_is_refused_in_a_sentence(image: bytes, says: str):
    with pytest.raises(KernelError, match=says) as caught:
        linux.load("k", image, b"", "", 32 * MIB)
    assert "\n" not in str(caught.value)


def test_a_command_line_has_the_kernels_own_limit():
    linux.load("k", bzimage(), b"", "x" * 2047, 32 * MIB)
    with pytest.raises(KernelError, match="2048 characters and kernel k takes 2047"):
        linux.load("k", bzimage(), b"", "x" * 2048, 32 * MIB)


def test_an_initrd_larger_than_memory_names_the_memory_it_needs():
    with pytest.raises(KernelError, match="has 33554432 bytes, and 29356032 are free") as caught:
        linux.load("k", bzimage(init_size=4096), bytes(32 * MIB), "", 44 * MIB)
    assert "--memory 49M" in str(caught.value)


def test_a_file_that_is_no_kernel_is_named(tmp_path: Path):
    file = tmp_path / "text"
    file.write_bytes(b"hello")
    with pytest.raises(KernelError, match=r"neither a Linux bzImage .* nor a multiboot image"):
        load_kernel(file, [], "", 32 * MIB)
