; A tight loop that never ends and touches nothing but EAX: for budgets, interruption and speed.
; At F000:0003 after CLI and XOR: `spin: inc eax; jmp spin`, two instructions a turn.
; ROM: v2e run --firmware loop.bin --limit 1000000 (status 6); QEMU -bios.
bits 16
org 0
rom:
start:
        cli
        xor ax, ax
spin:   inc eax
        jmp spin
        times 0xFFF0 - ($ - $$) db 0xF4
        jmp 0xF000:start
        times 0x10000 - ($ - $$) db 0
