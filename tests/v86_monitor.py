"""A guest whose virtual-8086 code calls its monitor: for tests of callers on the other side of that mode."""

from __future__ import annotations

from machines import protected, rom_text

#: A monitor of virtual-8086 mode, whose handler of #GP is 32-bit code on a flat stack; of the guest's functions one is
#: called near, one far, and that one executes HLT, which is privileged. The handler runs on behind it.
MONITOR = rom_text(
    protected(
        "dword 0x08:0xf0000+monitor",
        """
        dw 0xffff, 0, 0x9a00, 0x00cf          ; 08: code32, flat
        dw 0xffff, 0, 0x9200, 0x00cf          ; 10: data32, flat
        dw 0x0067, 0x0600, 0x8900, 0x0000     ; 18: a TSS at 600h
        """,
    )
    + """
    bits 32
    monitor:
        mov ax, 0x10
        mov ss, ax
        mov ds, ax
        mov esp, 0x6000
        mov dword [0x604], 0x6000             ; ESP0
        mov word [0x608], 0x10                ; SS0
        mov ax, 0x18
        ltr ax
        mov word [0x800 + 13*8], refused
        mov dword [0x800 + 13*8 + 2], 0x8e000008
        mov word [0x800 + 13*8 + 6], 0xf
        lidt [0xf0000 + idtr]
        push dword 0x4000                     ; GS, FS, DS, ES
        push dword 0x3000
        push dword 0x2000
        push dword 0x1000
        push dword 0x5000                     ; SS:ESP
        push dword 0x0100
        push dword 0x00020002                 ; EFLAGS: VM
        push dword 0xf000
        push dword guest
        iretd
    idtr:
        dw 14 * 8 - 1
        dd 0x800
    refused:
        push eax
        push ebp
        call look
        pop ebp
        pop eax
        add esp, 4
        inc dword [esp]                       ; behind HLT
        iretd
    look:
        sub esp, 8
        nop
        add esp, 8
        ret
    bits 16
    times 0x200-($-$$) nop
    guest:
        call near_one                         ; returns to 203h
        jmp guest
    times 0x210-($-$$) nop
    near_one:
        push si
        call 0xf000:far_one                   ; returns to 216h
        pop si
        ret
    times 0x220-($-$$) nop
    far_one:
        push di
        hlt                                   ; at 221h
        pop di
        retf
"""
)
#: Offsets in segment F000h: of the HLT, and behind the calls of its function and of that one's caller.
REFUSED, BEHIND_FAR, BEHIND_NEAR = 0x221, 0x216, 0x203
