"""The machine `pc`: SeaBIOS shadows itself, finds PCI and ACPI, boots from IDE; PAM, DMA and power as chips do."""

from __future__ import annotations

import pytest

from asm import assemble
from emu.debugger import Debugger
from emu.machine import Machine, MachineConfig, MachineExit, MachineStop, build_machine
from emu.media import Disk
from machines import pc, rom, seabios_pc

BOOT = """
bits 16
org 0x7c00
mov al, '!'
out 0xe9, al
mov al, 5
out 0xf4, al
hlt
times 510-($-$$) db 0
dw 0xaa55
"""


def run(machine: Machine, limit: int = 50_000_000) -> MachineExit:
    return machine.run(limit)


def test_seabios_finds_the_board_and_boots_from_ide():
    machine = seabios_pc(assemble(BOOT))
    end = run(machine)
    said = machine.debugcon_text()
    assert end.reason is MachineStop.EXIT and end.code == 5
    for line in (
        "Running on QEMU (i440fx)",
        "QEMU fw_cfg DMA interface supported",
        "Moving pm_base to 0x600",
        "PCI: init bdf=00:01.1 id=8086:7010",
        "Using pmtimer, ioport 0x608",
        "ACPI: parse DSDT at",
    ):
        assert line in said, said
    assert "WARNING" not in said and "error" not in said.lower()
    # BIOS shadowing: what runs at F0000h is RAM that SeaBIOS has written its variables to.
    assert bytes(machine.memory.part("shadow")) != bytes(machine.memory.part("firmware")[-0x40000:])


def test_the_tables_that_seabios_linked_sum_to_zero():
    machine = seabios_pc(assemble(BOOT))
    run(machine)
    low = machine.memory.read(0xF0000, 0x10000)
    rsdp = low.index(b"RSD PTR ")
    assert sum(low[rsdp : rsdp + 20]) % 256 == 0
    rsdt = int.from_bytes(low[rsdp + 16 : rsdp + 20], "little")
    found = {}
    pending = [rsdt]
    while pending:
        at = pending.pop()
        length = int.from_bytes(machine.memory.read(at + 4, 4), "little")
        table = machine.memory.read(at, length)
        found[table[:4]] = table
        assert sum(table) % 256 == 0, table[:4]
        if table[:4] == b"RSDT":
            pending += [int.from_bytes(table[i : i + 4], "little") for i in range(36, length, 4)]
        if table[:4] == b"FACP":
            assert machine.memory.read(int.from_bytes(table[36:40], "little"), 4) == b"FACS"
            pending.append(int.from_bytes(table[40:44], "little"))
    assert set(found) == {b"RSDT", b"FACP", b"APIC", b"HPET", b"DSDT"}
    assert len(found[b"FACP"]) == 116  # ACPI 1.0b, table 5-5


@pytest.mark.slow
def test_slices_leave_no_trace():
    prints = []
    for piece in (None, 9973, 501):
        machine = seabios_pc(assemble(BOOT), slice=piece)
        run(machine, 3_000_000)
        prints.append(machine.fingerprint())
    assert prints[0] == prints[1] == prints[2]


@pytest.mark.slow
def test_a_saved_machine_continues_as_it_would_have():
    machine = seabios_pc(assemble(BOOT))
    run(machine, 2_500_000)
    saved = machine.save()
    run(machine, 4_000_000)
    expected = machine.fingerprint()
    other = seabios_pc(assemble(BOOT))
    other.restore(saved)
    run(other, 4_000_000)
    assert other.fingerprint() == expected
    machine.restore(saved)
    run(machine, 4_000_000)
    assert machine.fingerprint() == expected


def guest(body: str, data: str = "", **config: object) -> tuple[Machine, MachineExit]:
    """A ROM of ours; `body` ends by a write to the debug-exit port."""
    machine = pc(rom(PCI + body, DATA + data), **config)
    return machine, run(machine, 5_000_000)


#: `cfg REG, SIZE...`: configuration accesses; the stack is at 7000h.
PCI = """
%macro pciw 4 ; device*8+function, register, size (b w d), value
    mov dx, 0xcf8
    mov eax, 0x80000000 | (%1 << 8) | (%2 & 0xfc)
    out dx, eax
    mov dx, 0xcfc + (%2 & 3)
    %ifidn %3, b
    mov al, %4
    out dx, al
    %elifidn %3, w
    mov ax, %4
    out dx, ax
    %else
    mov eax, %4
    out dx, eax
    %endif
%endmacro
xor ax, ax
mov ss, ax
mov sp, 0x7000
"""
DATA = ""


def test_a_rom_copies_itself_to_ram_and_goes_on_from_there():
    """The classical shadowing: reads from ROM and writes to DRAM, then DRAM alone; the code that does it moves too."""
    machine, end = guest(
        """
        pciw 0, 0x59, b, 0x20
        mov ax, 0xf000
        mov ds, ax
        mov es, ax
        xor si, si
        xor di, di
        mov cx, 0x8000
        cld
        rep movsw
        pciw 0, 0x59, b, 0x30
        mov byte [patched], 7
        pciw 0, 0x59, b, 0x10
        mov byte [patched], 9
        mov al, [patched]
        out 0xf4, al
        hlt
        """,
        "patched: db 1",
    )
    assert (end.reason, end.code) == (MachineStop.EXIT, 7)
    assert bytes(machine.memory.part("firmware-low")).count(b"\xf4") > 1000  # the ROM itself is as it was


def test_soft_off_ends_the_run():
    """ACPI 1.0b, 4.7.3.2: SLP_TYP of \\_S5 and SLP_EN in PM1 control."""
    _, end = guest(
        """
        pciw 11, 0x40, d, 0x601
        pciw 11, 0x80, b, 1
        mov dx, 0x604
        mov ax, 0x2000
        out dx, ax
        hlt
        """
    )
    assert end.reason is MachineStop.POWEROFF


@pytest.mark.slow
def test_cf9_resets_a_machine_whose_shadow_is_in_use():
    machine = pc(rom(PCI + "pciw 0, 0x5a, b, 0x33\nmov dx, 0xcf9\nmov al, 6\nout dx, al\nhlt"))
    machine.run(2000)
    assert len([event for event in machine.journal if event.kind == "reset"]) > 5


def test_code_whose_memory_is_switched_away_is_gone():
    """PAM0 for a DRAM that holds nothing: the next instruction is DRAM's zeros (ADD [BX+SI],AL)."""
    machine = pc(rom(PCI + "pciw 0, 0x59, b, 0x30\nhlt"))
    machine.run(2000)
    assert machine.memory.read(0xFE000, 16) == bytes(16)
    assert not machine.executor.halted


DMA_READ = """
    pciw 9, 0x20, d, 0xc000
    pciw 9, 4, w, 5
    mov dword [0x500], 0x8000
    mov dword [0x504], 0x80000000 + {count}
    mov dx, 0xc004
    mov eax, 0x500
    out dx, eax
    mov dx, 0x1f2
    mov al, {sectors}
    out dx, al
    inc dx
    mov al, 0
    out dx, al
    inc dx
    out dx, al
    inc dx
    out dx, al
    inc dx
    mov al, 0xe0
    out dx, al
    inc dx
    mov al, {command:#x}
    out dx, al
    mov dx, 0xc000
    mov al, {direction}
    out dx, al
    mov dx, 0xc002
    mov cx, 0xffff
wait1:
    in al, dx
    test al, 4
    loopz wait1
    out 0xf4, al
    hlt
"""


def disk() -> Disk:
    return Disk.from_bytes(bytes(i % 251 for i in range(1 << 20)))


@pytest.mark.slow
def test_bus_master_dma_reads_a_disk():
    machine, end = guest(DMA_READ.format(count=0x400, sectors=2, command=0xC8, direction=9), disks=(disk(),))
    assert end.code == 4  # interrupt, not active (SFF-8038i, 3.1)
    assert machine.memory.read(0x8000, 1024) == disk().read(0, 2)


def test_bus_master_dma_writes_a_disk():
    target = disk()
    body = "mov dword [0x8000], 0x12345678\n" + DMA_READ.format(count=0x200, sectors=1, command=0xCA, direction=1)
    _, end = guest(body, disks=(target,))
    assert end.code == 4
    assert target.read(0, 1)[:6] == b"\x78\x56\x34\x12\0\0"


def test_a_table_longer_than_the_transfer_stays_active():
    """SFF-8038i, 3.1, the second line of the table of status bits."""
    _, end = guest(DMA_READ.format(count=0x800, sectors=2, command=0xC8, direction=9), disks=(disk(),))
    assert end.code == 5


def test_dma_to_nowhere_is_an_error_and_touches_nothing():
    body = DMA_READ.replace("0x8000\n", "0x90000000\n").replace("test al, 4", "test al, 6")
    machine, end = guest(body.format(count=0x200, sectors=1, command=0xC8, direction=9), disks=(disk(),))
    assert end.code is not None and end.code & 3 == 2
    assert machine.memory.read(0x8000, 512) == bytes(512)


def test_the_pm_timer_counts_3579545_a_virtual_second_and_overflows_into_an_sci_status():
    machine = pc(rom("jmp $"))
    machine.board.chipset.pm.write_pm(3, 0)
    at = 0
    for retired in (1_000_000, 3_000_000):
        machine.run(retired)
        at = int.from_bytes(bytes(machine.board.chipset.pm.read_pm(8 + i) for i in range(4)), "little")
        assert at == retired * 10 * 3_579_545 // 1_000_000_000 & 0xFFFFFF


def test_a_machine_of_that_name_does_not_exist():
    with pytest.raises(Exception, match="use isapc or pc"):
        build_machine(MachineConfig(machine="ps2", firmware=b"\xf4" * 0x10000))


def test_every_device_shows_itself():
    debugger = Debugger(pc(rom("hlt")))
    names = {view.name for view in debugger.devices()}
    assert {"pci", "i440fx", "piix3", "piix3-ide", "piix4-pm", "fw_cfg"} <= names
