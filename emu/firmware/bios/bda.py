"""The BIOS data area at 400h and the extended one: where each value stands.

Source: IBM PS/2 and PC BIOS Interface Technical Reference, "BIOS Data Area" and "Extended BIOS Data Area".
"""

from __future__ import annotations

COM_PORTS = 0x400  #: four words, then three of LPT_PORTS
LPT_PORTS = 0x408
EBDA_SEGMENT = 0x40E
EQUIPMENT = 0x410
MEMORY_KIB = 0x413
SHIFT = 0x417  #: shift states, 417h and 418h
ALT_DIGITS = 0x419
KEY_HEAD, KEY_TAIL = 0x41A, 0x41C
KEY_BUFFER, KEY_BUFFER_END = 0x41E, 0x43E
FLOPPY_RECALIBRATED, FLOPPY_MOTORS, FLOPPY_MOTOR_TIMEOUT, FLOPPY_STATUS = 0x43E, 0x43F, 0x440, 0x441
VIDEO_MODE = 0x449
COLUMNS, PAGE_BYTES, PAGE_START = 0x44A, 0x44C, 0x44E
CURSORS = 0x450  #: eight words, column and row of each page
CURSOR_SHAPE = 0x460
PAGE = 0x462
CRTC_PORT, MODE_CONTROL, CGA_PALETTE = 0x463, 0x465, 0x466
TICKS, MIDNIGHT = 0x46C, 0x470
BREAK_FLAG = 0x471
WARM_START = 0x472
DISK_STATUS, DISK_COUNT = 0x474, 0x475
LPT_TIMEOUTS, COM_TIMEOUTS = 0x478, 0x47C
KEY_BUFFER_START, KEY_BUFFER_LIMIT = 0x480, 0x482  #: offsets in segment 40h
ROWS, CHARACTER_HEIGHT = 0x484, 0x485
VIDEO_CONTROL, VIDEO_SWITCHES, VIDEO_FLAGS, DISPLAY_CODE = 0x487, 0x488, 0x489, 0x48A
FLOPPY_RATE = 0x48B
FLOPPY_FEATURES, FLOPPY_MEDIA = 0x48F, 0x490
KEYBOARD_MODE, KEYBOARD_LEDS = 0x496, 0x497
WAIT_FLAG_POINTER, WAIT_MICROSECONDS, WAIT_ACTIVE = 0x498, 0x49C, 0x4A0
SAVE_POINTER = 0x4A8
VBE_MODE = 0x4F8  #: ours, in bytes that IBM leaves to applications of other systems: the VBE mode that is set

EBDA = 0x9FC00
EBDA_KIB = 1
#: In the EBDA: the pointing device's handler, states, and the packet that is coming in.
MOUSE_HANDLER, MOUSE_FLAGS_1, MOUSE_FLAGS_2, MOUSE_PACKET = EBDA + 0x22, EBDA + 0x26, EBDA + 0x27, EBDA + 0x28
#: Fixed disk parameter tables, as INT 41h and 46h point to, 16 bytes each.
DISK_TABLES = EBDA + 0x3D
