"""Every magic address and port of the PC, once, with its source."""

from types import MappingProxyType

from emu.typed import Final

# Physical memory of a PC/AT (IBM PC/AT Technical Reference, "System memory map").
CONVENTIONAL_END = 0xA0000  #: 640 KiB of RAM
VGA_WINDOW = 0xA0000  #: display memory, 128 KiB (IBM VGA Technical Reference)
VGA_WINDOW_SIZE = 0x20000
VGA_FRAME_BUFFER = 0xE0000000  #: VBE_DISPI_LFB_PHYSICAL_ADDRESS (Bochs VBE Display API); QEMU isa-vga has it there
VGA_MEMORY = 16 << 20
OPTION_ROM_BASE = 0xC0000  #: adapter ROMs, scanned in 2 KiB steps (BIOS Boot Specification 1.01, 3.3)
OPTION_ROM_END = 0xE0000
BIOS_LOW_END = 0x100000  #: the firmware's last 128 KiB end here
BIOS_LOW_MAX = 0x20000
EXTENDED_BASE = 0x100000
RESET_TOP = 1 << 32  #: the firmware's last byte is at 4 GiB - 1 (SDM vol. 3A, 10.1.4: first fetch at FFFFFFF0h)
A20 = 1 << 20  #: what an address loses while address line 20 is masked

# I/O ports (IBM PC/AT Technical Reference, "I/O address map").
DMA_LOW = 0x00  #: 8237A, channels 0-3
PIC_MASTER = 0x20
PIT = 0x40
KBC_DATA = 0x60
PORT_61 = 0x61
KBC_COMMAND = 0x64
RTC = 0x70
POST_CODE = 0x80
DMA_PAGES = 0x81  #: 74LS612; its first byte, 80h, is the POST code port
SYSTEM_CONTROL_A = 0x92  #: PS/2 system control port A: fast A20 and reset
PIC_SLAVE = 0xA0
DMA_HIGH = 0xC0  #: 8237A, channels 4-7, registers two ports apart
DEBUGCON_BOCHS = 0xE9  #: Bochs "port e9 hack"
COPROCESSOR_ERROR = 0xF0  #: a write clears IRQ 13 and asserts IGNNE#
DEBUG_EXIT = 0xF4  #: QEMU isa-debug-exit's customary address
IDE_SECONDARY = 0x170
IDE_PRIMARY = 0x1F0
COM1 = 0x3F8
COM2 = 0x2F8
LPT1 = 0x378
VGA_MONO_CRTC = 0x3B4
VGA_PORTS = 0x3C0
VGA_STATUS = 0x3DA  #: input status 1, of a colour adapter
VBE_PORTS = 0x1CE  #: VBE_DISPI_IOPORT_INDEX (Bochs VBE Display API); QEMU has the data at 1D0h as well
IDE_SECONDARY_CONTROL = 0x376
FDC = 0x3F2  #: DOR, TDR, MSR, FIFO
IDE_PRIMARY_CONTROL = 0x3F6
FDC_CHANGE = 0x3F7  #: DIR and CCR
DEBUGCON_SEABIOS = 0x402  #: SeaBIOS CONFIG_DEBUG_IO; QEMU isa-debugcon's customary address
ELCR = 0x4D0
FW_CFG = 0x510  #: QEMU docs/specs/fw_cfg.rst, "x86, x86_64 Register Locations"
RESET_CONTROL = 0xCF9
#: Where the built-in BIOS asks for its services (emu/firmware/bios). No device of a PC is there: ISA cards decode 100h
#: to 3FFh and the aliases of these, so 0C00h to 0CFFh belong to the system board (EISA Specification 3.12, "I/O
#: address map"), on which neither chipset has anything at C90h.
BIOS_SERVICE = 0xC90

#: What the CPU itself reads when it asserts FERR#, and writes when it negates it (emu/devices/coprocessor.py).
FERR = 0x10000

# IRQ inputs of the 8259 pair.
IRQ_PIT = 0
IRQ_KEYBOARD = 1
IRQ_COM2 = 3
IRQ_COM1 = 4
IRQ_FDC = 6
IRQ_LPT1 = 7
IRQ_RTC = 8
IRQ_MOUSE = 12
IRQ_COPROCESSOR = 13
IRQ_IDE_PRIMARY = 14
IRQ_IDE_SECONDARY = 15
#: The timers that tick for ever, by their names on the clock.
TICKING: Final = MappingProxyType({"pit": IRQ_PIT, "rtc": IRQ_RTC})

# The `pc` machine (i440FX and PIIX3).
PCI_CONFIG = 0xCF8  #: CONFADD and CONFDATA (PCI 2.1, 3.7.4.1)
APM_CONTROL = 0xB2  #: with the status at B3h (Intel 82371AB data sheet, APMC and APMS)
FW_CFG_DMA = 0x514  #: QEMU docs/specs/fw_cfg.rst, "x86, x86_64 Register Locations"
ACPI_PM = 0x600  #: where SeaBIOS puts the PM ports; the FADT says so (SeaBIOS src/fw/dev-piix.h)
IRQ_SCI = 9
IOAPIC = 0xFEC00000  #: Intel 82093AA data sheet, 3.0
HPET = 0xFED00000  #: IA-PC HPET 1.0a, 3.2.4
HPET_ID = 0x8086A201  #: its capability register, low half: Intel, legacy replacement, 64 bits, 3 timers, revision 1
LAPIC = 0xFEE00000  #: SDM vol. 3A, 11.4.1
SHADOW_BASE = 0xC0000  #: DRAM that PAM registers switch in (Intel 82441FX data sheet, PAM[6:0])
RTC_CENTURY = 0x32  #: the byte of CMOS RAM with the century (IBM PS/2 Hardware Interface Technical Reference)
