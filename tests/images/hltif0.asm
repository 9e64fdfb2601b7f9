; HLT with interrupts off: nothing but NMI or reset ends it. Prints "halting" on debug port E9h before.
; ROM: v2e run --firmware hltif0.bin (status 4, says where); QEMU -bios waits for ever.
bits 16
org 0
rom:
start:
        cli
        mov al, 0x80                    ; no NMI (CMOS index bit 7)
        out 0x70, al
        mov si, text
.next:  mov al, [cs:si]
        inc si
        cmp al, 0
        je halt
        out 0xE9, al
        jmp .next
halt:   hlt
        jmp halt
text:   db 'halting', 10, 0
        times 0xFFF0 - ($ - $$) db 0xF4
        jmp 0xF000:start
        times 0x10000 - ($ - $$) db 0
