"""Debug console, debug exit and POST code ports."""

from __future__ import annotations

from emu.bus import Ports
from emu.devices.debugports import DebugConsole, DebugExit, PostCode


def test_console_sends_each_byte_and_reads_e9():
    sent: list[bytes] = []
    ports = Ports()
    console = DebugConsole(sent.append)
    ports.map(0xE9, 1, console, "debugcon")
    ports.map(0x402, 1, console, "debugcon")
    ports.port_out(0x402, 1, 0x41)
    ports.port_out(0xE9, 1, 0x42)
    assert (sent, ports.port_in(0xE9, 1), ports.port_in(0x402, 1)) == ([b"A", b"B"], 0xE9, 0xE9)
    assert console.save().written == 2


def test_exit_port_hands_the_code_on():
    codes: list[int] = []
    device = DebugExit(codes.append)
    device.write(0, 0x10, 1)
    assert codes == [0x10]
    saved = device.save()
    device.reset()
    assert device.view().fields[0].value == "none"
    device.restore(saved)
    assert (device.save().code, device.read(0, 1)) == (0x10, 0)


def test_post_code_keeps_the_last_byte():
    device = PostCode()
    device.write(0, 0x12, 1)
    device.write(0, 0x34, 1)
    assert (device.read(0, 1), device.peek(0, 1)) == (0x34, 0x34)
    assert device.view().fields[0].text == "34h"
