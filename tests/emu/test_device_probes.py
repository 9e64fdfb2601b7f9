"""The devices of every PC asked by guests: the probes print the same here, under QEMU's TCG and under Bochs 2.7.

Where a peer does not do what the chip's data sheet says, DIFFERENCES names the checks, what it does, and the source;
an entry that no longer holds fails. HITR is IBM's PS/2 Hardware Interface Technical Reference. BY_THE_DATA_SHEET has
the values of checks in which no peer agrees with us.
"""

from __future__ import annotations

import functools

import pytest

from emu.media import Disk
from probes import QEMU_TIME, Difference, checks, explained, ours, peer

pytestmark = pytest.mark.slow

#: Image -> how many checks it prints.
IMAGES = {
    "probe_pit": 69, "probe_pic": 38, "probe_uart": 33, "probe_kbc": 40, "probe_cmos": 25, "probe_dma": 11,
    "probe_ata": 37, "probe_fdc": 27, "probe_fdc_more": 8,
}  # fmt: skip

_QEMU_PIT_GATE = (
    "counts while GATE is low but in mode 1 and 5 (8254, figure 21), and reloads at the write, not with the next CLK"
)
_LOADS = "the count goes into CE with the CLK pulse behind it (8254, mode definitions), and the status shows NULL COUNT"
_BOCHS_POLL = 'its poll word has no I bit and ends the highest level in service (8259A, "Poll Command")'
_ENABLED_ONLY = 'sets flags of register C only where their interrupt is enabled (MC146818A, "Register C")'

DIFFERENCES = (
    # -- 8254
    Difference(
        "probe_pit", "QEMU",
        (
            "held-0", "held-2", "held-3", "held-4", "rewritten-0", "rewritten-2", "rewritten-3", "rewritten-4",
            "gate-2", "gate-4", "triggered-2", "triggered-4", "odd-3", "bcd", "bcd-zero", "lsb-only", "lsb-only-high",
            "msb-only", "msb-only-latched", "latch-holds", "latch-interleaved", "read-unlatched", "status-then-count",
            "count-behind-status", "read-back-of-none", "read-back-nothing", "mode-2-gate", "mode-3-out",
            "mode-3-stops-high", "mode-0-end", "mode-4",
        ),
        _QEMU_PIT_GATE,
    ),
    Difference(
        "probe_pit", "QEMU",
        (
            *(f"{name}-{mode}" for name in ("control-word", "loaded", "half-count") for mode in (1, 2, 4, 5, 6, 7)),
            "control-word-0", "control-word-3", "mode-1", "mode-1-retriggered", "mode-5",
        ),
        f"{_LOADS}; OUT begins low in mode 0 alone",
    ),
    Difference(
        "probe_pit", "QEMU", ("latch-cleared-by-control", "status-twice", "read-back-of-two"),
        "a latched count is held \"until it is read by the CPU (or until the Counter is reprogrammed)\"; OUT and NULL "
        "COUNT are those of the new control word (8254, \"Counter Latch Command\", \"Read-Back Command\")",
    ),
    Difference("probe_pit", "QEMU", ("mode-0-end-bcd",), "9999 comes below 0 in BCD (8254, \"Counter\")"),
    Difference("probe_pit", "QEMU", ("mode-0-first-byte",), "writing the first of two bytes sets OUT low (mode 0)"),
    Difference("probe_pit", "QEMU", ("control-port",), "to read it is \"no operation (3-state)\" (figure 14)"),
    Difference("probe_pit", "Bochs", ("control-port",), "the same"),
    Difference("probe_pit", "QEMU", ("port-61-bits",), "bits 2 and 3 can be written (82371SB, NMISC)"),
    Difference("probe_pit", "Bochs", ("port-61-bits",), "the same"),
    Difference(
        "probe_pit", "Bochs", ("loaded-3", "loaded-6", "loaded-7", "half-count-3", "half-count-6", "half-count-7"),
        f"{_LOADS}, whatever GATE is",
    ),
    Difference("probe_pit", "Bochs", ("held-2",), "counts in mode 2 while GATE is low (8254, figure 21)"),
    Difference(
        "probe_pit", "Bochs", ("rewritten-2", "rewritten-3"),
        "a new count \"does not affect the current counting sequence\" in modes 2 and 3",
    ),
    Difference("probe_pit", "Bochs", ("odd-3",), "mode 3 loads \"the initial count minus one\" of odd counts"),
    Difference(
        "probe_pit", "Bochs", ("mode-1-retriggered",),
        "\"if a new count is written during a one-shot pulse, the current one-shot is not affected\"",
    ),
    # -- 8259A
    Difference(
        "probe_pic", "QEMU", ("request-withdrawn", "slave-cascade"),
        "an edge's request lasts while its input is high (8259A, \"Edge and Level Triggered Modes\"); it keeps it",
    ),
    Difference(
        "probe_pic", "QEMU", ("rotate-specific", "set-priority"),
        "its 8042 raises no IRQ 1 for D2h while the keyboard's interface is off (IBM PS/2 HITR, command D2: \"as if "
        "from the keyboard\")",
    ),
    Difference(
        "probe_pic", "QEMU", ("special-mask-eoi",),
        "a level masked by IMR \"will not be cleared by a non-specific EOI\" in special mask mode (8259A)",
    ),
    Difference(
        "probe_pic", "QEMU", ("vectors-automatic",),
        "INT falls with INTA (8259A, INTA timing), so the slave's second request is an edge for the master",
    ),
    Difference("probe_pic", "Bochs", ("vectors-automatic",), "the same"),
    Difference(
        "probe_pic", "Bochs",
        (
            "poll", "poll-higher", "poll-by-odd-port", "poll-with-read-select", "poll-slave", "eoi-non-specific",
            "eoi-specific", "edge-once", "rotate-non-specific", "rotate-specific", "set-priority",
            "set-priority-nested", "priority-reset-by-icw1", "no-operation", "special-mask", "special-mask-eoi",
            "automatic-eoi", "rotate-in-automatic-eoi", "rotate-cleared", "without-icw4", "nested",
            "special-fully-nested",
        ),
        _BOCHS_POLL,
    ),
    Difference("probe_pic", "Bochs", ("status-after-icw1",), "ICW1 sets status read to IRR (8259A, ICW1, f)"),
    # -- 16550
    Difference(
        "probe_uart", "QEMU", ("modem-delta", "modem-ring", "line-interrupt", "thre-before-modem"),
        "sees no changes of the modem lines in loopback, where the interrupts are \"still controlled by IER\" (8.8)",
    ),
    Difference("probe_uart", "QEMU", ("word-lengths",), "does not cut characters to the word length (8.1)"),
    Difference("probe_uart", "QEMU", ("break", "fifo-break"), "has no break in loopback"),
    Difference("probe_uart", "QEMU", ("irq-line", "irq-in-loopback"),
               "OUT2 does not gate the request (IBM AT Serial/Parallel Adapter; in loopback the pin is inactive, 8.8)"),
    Difference("probe_uart", "Bochs", ("irq-line",), "OUT2 raises no request that waits"),
    Difference("probe_uart", "Bochs", ("irq-in-loopback",), "requests pass in loopback"),
    Difference("probe_uart", "Bochs", ("fifo-reset", "fifo-off-clears"), "FIFO resets leave DR set (8.5)"),
    Difference("probe_uart", "Bochs", ("fifo-below-trigger", "fifo-timeout"),
               "the request stays below the trigger level, and hides the timeout (8.11)"),
    Difference("probe_uart", "Bochs", ("fifo-after-overrun",),
               "gives the last character from an empty FIFO, QEMU and we 0: the data sheet does not say"),
    Difference("probe_uart", "Bochs", ("fifo-break",), "shows BI before the break is on top of the FIFO (8.4)"),
    # -- 8042, keyboard, mouse
    Difference("probe_kbc", "QEMU", ("command-byte-aliases",), "has no RAM behind the command byte (HITR, 20-3F)"),
    Difference("probe_kbc", "Bochs", ("command-byte-aliases",), "the same"),
    Difference("probe_kbc", "QEMU", ("status-a2",), "bit 3 is always set; it tells the port written last (HITR)"),
    Difference("probe_kbc", "QEMU", ("a20-port-92",), "the last writer wins; both are ORed (82371SB, A20M#)"),
    Difference("probe_kbc", "Bochs", ("a20-port-92",), "the same"),
    Difference("probe_kbc", "QEMU", ("kbd-command-for-option",), "takes the command for the LEDs (HITR, EDh)"),
    Difference("probe_kbc", "Bochs", ("kbd-command-for-option",), "the same"),
    Difference("probe_kbc", "QEMU", ("kbd-key-types", "kbd-key-type"), "knows not all of F7h to FDh (HITR)"),
    Difference("probe_kbc", "Bochs", ("kbd-key-types", "kbd-key-type"), "the same"),
    Difference("probe_kbc", "Bochs", ("kbd-set-4",), "answers FFh; invalid input is answered by FEh (HITR, Resend)"),
    Difference("probe_kbc", "QEMU", ("aux-unknown",), "ignores it; invalid input is answered by FEh (HITR, mouse)"),
    Difference("probe_kbc", "Bochs", ("aux-wheel", "aux-five"), "its mouse has no wheel by default"),
    # -- MC146818A
    Difference("probe_cmos", "QEMU", ("carry",), "computes the day of the week from the date; the chip counts it"),
    Difference("probe_cmos", "QEMU", ("binary",), "converts the time when DM changes; nothing does (Register B, DM)"),
    Difference("probe_cmos", "QEMU", ("update-interrupt",), "8259A: the request outlasts the line"),
    Difference("probe_cmos", "QEMU", ("periodic-flag",), _ENABLED_ONLY),
    Difference("probe_cmos", "Bochs", ("update-flag", "periodic-flag", "alarm-without-enable"), _ENABLED_ONLY),
    Difference(
        "probe_cmos", "Bochs",
        ("carry", "leap-year", "no-leap-year", "thirty-days", "twelve-hours", "binary", "binary-twelve", "alarm"),
        "loses an hour when the time is set, by mktime's daylight saving",
    ),
    Difference("probe_cmos", "Bochs", ("divider-released",), "takes a second, not half of one (Register A, DV)"),
    # -- 8237A
    Difference("probe_dma", "QEMU", ("mask-all",), "the mask register reads 0; clones, as the 82371SB, give it"),
    Difference(
        "probe_dma", "QEMU", ("memory-to-memory", "memory-to-memory-status", "temporary", "after-transfer"),
        "has no memory-to-memory transfers (8237A, \"Memory-to-Memory\")",
    ),
    Difference(
        "probe_dma", "Bochs", ("memory-to-memory", "memory-to-memory-status", "temporary", "after-transfer"), "the same"
    ),
    # -- ATA
    Difference("probe_ata", "QEMU", ("read-lba",), "counts on; the address is the last sector's (ATA-1)"),
    Difference("probe_ata", "Bochs", ("read-lba",), "the same"),
    Difference(
        "probe_ata", "QEMU",
        (
            "read-beyond-end", "read-across-end", "read-chs-sector-0", "verify-beyond-end", "verify-ext-beyond-end",
            "write-beyond-end",
        ),
        "an address that does not exist is IDNF (ATA-6, error outputs); it aborts, verifies, takes the data",
    ),
    Difference(
        "probe_ata", "Bochs",
        (
            "read-beyond-end", "read-across-end", "read-chs-sector-0", "verify-beyond-end", "verify-ext-beyond-end",
            "write-beyond-end",
        ),
        "the same, but for a write, which it aborts",
    ),
    Difference("probe_ata", "QEMU", ("standby",), "CHECK POWER MODE gives 0 in standby (ATA-6, CHECK POWER MODE)"),
    Difference("probe_ata", "Bochs", ("standby",), "the same"),
    Difference("probe_ata", "QEMU", ("buffer",), "has no buffer (ATA-6, READ BUFFER, WRITE BUFFER)"),
    Difference("probe_ata", "Bochs", ("buffer",), "the same"),
    Difference("probe_ata", "QEMU", ("interrupt",), "8259A: the request outlasts the line"),
    Difference("probe_ata", "Bochs", ("high-order-bytes",), "has no HOB (ATA-6, device control register)"),
    Difference("probe_ata", "Bochs", ("initialize-parameters",), "takes its own geometry alone"),
    # -- 82077AA
    Difference(
        "probe_fdc", "QEMU", ("read", "read-terminal-count", "read-multi-track", "write"),
        "SE is of seeks, implied ones too (82077AA, status register 0); there was none",
    ),
    Difference("probe_fdc_more", "QEMU", ("verify", "read-track"), "the same"),
    Difference("probe_fdc", "QEMU", ("dumpreg", "lock", "perpendicular"),
               "mixes the bytes of SPECIFY, and shifts the perpendicular bits (82077AA, DUMPREG)"),
    Difference("probe_fdc", "QEMU", ("read-past-eot",), "EN without TC (82077AA, status register 1)"),
    Difference("probe_fdc", "QEMU", ("read-no-sector",), "ND, not EN, and ST0's head is 0"),
    Difference("probe_fdc", "QEMU", ("read-wrong-cylinder",), "ND and WC without implied seek; it seeks"),
    Difference("probe_fdc", "QEMU", ("read-wrong-rate",), "SE, which is not of this command"),
    Difference("probe_fdc", "QEMU", ("format",), "formats nothing"),
    Difference("probe_fdc", "QEMU", ("no-drive",), "EC and AT: track 0 is not found (82077AA, RECALIBRATE)"),
    Difference("probe_fdc", "QEMU", ("dor-in-reset",), "MSR has RQM in reset (82077AA, main status register: 0)"),
    Difference("probe_fdc", "Bochs", ("version", "dumpreg", "lock", "perpendicular"), "is an older chip, the 8272A"),
    Difference("probe_fdc", "Bochs", ("read-past-eot",), "goes on into the next head"),
    Difference("probe_fdc", "Bochs", ("read-wrong-cylinder",), "seeks (82077AA, status register 2: WC)"),
    Difference("probe_fdc", "Bochs", ("read-wrong-rate",), "reads at any data rate"),
    Difference("probe_fdc", "Bochs", ("implied-seek",), "SE is set by an implied seek (status register 0)"),
    Difference("probe_fdc", "Bochs", ("format",), "C, H, R, N have \"no meaning\" behind FORMAT; the sectors agree"),
    Difference(
        "probe_fdc_more", "QEMU", ("deleted", "read-deleted", "scan-equal", "relative-seek"),
        "has no deleted data marks, compares nothing in SCAN, and keeps PCN at 0",
    ),
)  # fmt: skip

#: Values from the data sheets, where no peer agrees.
BY_THE_DATA_SHEET = {
    # "initial count minus one"; 64 Ki counts later; no device drives the bus; all four bits; one-shot not affected
    "probe_pit": {
        "odd-3": "1234", "held-2": "12341234", "rewritten-2": "1234F4", "rewritten-3": "1234F6", "control-port": "FF",
        "port-61-bits": "0F00", "loaded-6": "01BC", "loaded-7": "01BE", "half-count-6": "BC", "half-count-7": "BE",
        "mode-1-retriggered": "723F32",
    },
    # IR0, slave IR0, slave IR4, IR4; IS0 is masked and stays; IRQ 1 is asked for and comes before IRQ 4
    "probe_pic": {
        "vectors-automatic": "/20282C24", "special-mask-eoi": "01", "rotate-specific": "840081",
        "set-priority": "818480",
    },
    # OUT2 lets a waiting request through; bit 7 while an error is behind the top, BI when it is there
    "probe_uart": {"irq-line": "001000", "irq-in-loopback": "00", "fifo-break": "8112910000"},
    "probe_kbc": {
        "command-byte-aliases": "/5A", "a20-port-92": "01000102", "kbd-command-for-option": "/FA/EE",
        "kbd-key-types": "/FA/FA", "kbd-key-type": "/FA/FA/FA",
    },
    # year, month, day, hour, minute, second, day of the week; the flag without its interrupt
    "probe_cmos": {"carry": "20010100000001", "binary": "150A1F140000", "periodic-flag": "40"},
    # 5 stays; status and error: IDNF; mode 00h is standby
    "probe_ata": {
        "read-lba": "480005400005000040", "read-beyond-end": "41100F", "read-across-end": "07FF4110010008",
        "read-chs-sector-0": "4110", "verify-beyond-end": "4110", "verify-ext-beyond-end": "4110",
        "write-beyond-end": "4110", "standby": "4000", "buffer": "48BC9A",
    },
    # ST0, ST1, ST2, C, H, R, N: EN; ND and WC; MA; SPECIFY's bytes, EOT, LOCK and perpendicular, CONFIGURE, PRETRK
    "probe_fdc": {
        "read-past-eot": "/408000010001020011", "read-wrong-cylinder": "/40041007000102",
        "read-wrong-rate": "/40010000000102", "dumpreg": "/00000000AF0400001700",
        "lock": "/10/00000000AF0400801700/00", "perpendicular": "/00000000AF0400041700",
        "format": "/04000000000002/0400000A010102E5E5",
    },
    # Bochs has none of these: CM without counting on, CM and the sector behind; SH; PCN by the steps asked for
    "probe_fdc_more": {
        "deleted": "/00000001000102/00004000000502/000040010001020005", "read-deleted": "/00000001000102",
        "scan-equal": "/00000801000102", "relative-seek": "/2003/20FD", "verify": "/00000001000102",
    },
    # 17 bytes A0h to B0h; TC of channel 1 once; the last byte; 3011h and FFFFh
    "probe_dma": {
        "memory-to-memory": "A0B000", "memory-to-memory-status": "0200", "temporary": "B0",
        "after-transfer": "1130FFFF",
    },
}  # fmt: skip


#: Sectors of the disk of probe_ata, and of the diskette of probe_fdc; each begins with its number and 55AAh.
DISK, DISKETTE = 2048, 2880
#: What Bochs does not implement ends its run: verify, deleted data, scan.
QEMU_ALONE = {"probe_fdc_more"}


def numbered(sectors: int) -> bytes:
    return b"".join(i.to_bytes(2, "big") + b"\x55\xaa" + bytes(508) for i in range(sectors))


def media(image: str) -> dict[str, object]:
    if image == "probe_ata":
        return {"disks": (Disk.from_bytes(numbered(DISK)),)}
    return {"floppies": (Disk.from_bytes(numbered(DISKETTE)),)} if image.startswith("probe_fdc") else {}


@functools.cache
def printed(image: str) -> dict[str, str]:
    machine = ours(image, **media(image))
    machine.close()
    return checks(machine.debugcon_text())


@pytest.mark.parametrize("name", ["QEMU", "Bochs"])
@pytest.mark.parametrize("image", IMAGES)
def test_the_probe_prints_what_the_peers_print(image: str, name: str) -> None:
    if name == "Bochs" and image in QEMU_ALONE:
        pytest.skip("Bochs's controller has none of these commands")
    mine = printed(image)
    theirs = peer(
        name, image, QEMU_TIME,
        disk=numbered(DISK) if image == "probe_ata" else None,
        floppy=numbered(DISKETTE) if image.startswith("probe_fdc") else None,
    )  # fmt: skip
    assert len(mine) == IMAGES[image]
    assert mine.keys() == theirs.keys()
    assert {check for check in mine if mine[check] != theirs[check]} == explained(DIFFERENCES, image, name)


@pytest.mark.parametrize("image", BY_THE_DATA_SHEET)
def test_where_no_peer_agrees_the_data_sheet_is_followed(image: str) -> None:
    mine = printed(image)
    assert {check: mine[check] for check in BY_THE_DATA_SHEET[image]} == BY_THE_DATA_SHEET[image]
    alone = explained(DIFFERENCES, image, "QEMU") & explained(DIFFERENCES, image, "Bochs")
    assert alone <= BY_THE_DATA_SHEET[image].keys()


@pytest.mark.slow
@pytest.mark.parametrize("image", ["probe_pit", "probe_pic", "probe_uart"])
def test_loops_and_slices_change_nothing_in_the_probes(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = set()
    for loop, slice in (("", None), ("", 777), ("gate", None)):
        monkeypatch.setenv("V2E_ENGINE", loop)
        machine = ours(image, slice=slice)
        prints.add(machine.fingerprint())
        machine.close()
    assert len(prints) == 1
