; A boot sector that asks the BIOS for a key again and again: the CPU halts in the BIOS. The timer is masked: QEMU 7.2 may
; deliver an interrupt that Xen injects twice (docs/xen.md, Tests), which SeaBIOS's stack for interrupts does not bear.
        org 0x7C00
        bits 16
        in al, 0x21
        or al, 1
        out 0x21, al
next:   xor ax, ax
        int 0x16
        jmp next
        times 510 - ($ - $$) db 0
        dw 0xAA55
