; Counts five interrupts of the local APIC's timer, then five of the 8254, telling each at COM1, then ends by the debug
; exit. On the way it looks at devices of everybody's: results from SEEN on.
SEEN    equ 0x600               ; TPR, the VGA's memory, CMOS 10h, RTC register 0Ah
COUNT   equ 0x620
FIRST   equ 5               ; ticks of the one, and of both
LAST    equ 10
LAPIC   equ 0xFEE00000
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [COUNT], al
        mov word [8 * 4], tick
        mov [8 * 4 + 2], ax
        mov word [0x41 * 4], beat
        mov [0x41 * 4 + 2], ax
        mov al, 0xFF            ; what a BIOS has set up is not to be heard
        out 0x21, al
        lgdt [gdtr]             ; FS with a limit of 4 GiB
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, 8
        mov fs, bx
        and al, 0xFE
        mov cr0, eax
        mov dx, 0x3FB           ; 16550: 8 bits
        mov al, 3
        out dx, al
        mov dx, 0x3C2           ; the VGA: its memory is there, all planes are written
        mov al, 0x63
        out dx, al
        mov dx, 0x3C4
        mov ax, 0x0F02
        out dx, ax
        mov dx, 0x3CE
        mov ax, 0xFF08
        out dx, ax
        mov ax, 0xB800          ; its memory, around a write to one of its registers
        mov gs, ax
        mov word [gs:0x10], 0x4158
        mov dx, 0x3CE
        mov al, 0
        out dx, al
        mov ax, [gs:0x10]
        mov [SEEN + 4], ax
        mov al, 0x10            ; the RAM of the clock chip is the machine's
        out 0x70, al
        in al, 0x71
        mov [SEEN + 8], al
        mov al, 0x0A            ; its registers are the hypervisor's
        out 0x70, al
        out 0x80, al            ; may have the emulator go on
        in al, 0x71
        and al, 0x7F
        mov [SEEN + 12], al
        mov esi, LAPIC
        mov dword [fs:esi + 0x80], 0x20
        out 0x80, al
        mov eax, [fs:esi + 0x80]
        mov [SEEN], eax
        mov dword [fs:esi + 0xF0], 0x1FF
        mov dword [fs:esi + 0x3E0], 0xB
        mov dword [fs:esi + 0x320], 0x20041     ; periodic, vector 41h
        mov dword [fs:esi + 0x380], 3000000     ; 30 ms
first:  cli                     ; or the last tick may come between the look and the wait, and none behind it
        cmp byte [COUNT], FIRST
        jae .end
        sti
        hlt
        jmp first
.end:
        mov al, 0x11            ; 8259: base 8, all but IRQ0 masked
        out 0x20, al
        mov al, 8
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 1
        out 0x21, al
        mov al, 0xFE
        out 0x21, al
        mov al, 0x34            ; 8254: counter 0, mode 2, 35795: 33 Hz
        out 0x43, al
        mov al, 35795 & 0xFF
        out 0x40, al
        mov al, 35795 >> 8
        out 0x40, al
second: cli
        cmp byte [COUNT], LAST
        jae .end
        sti
        hlt
        jmp second
.end:
        mov dx, 0x3F8
        mov al, '.'
        out dx, al
        mov al, 3
        out 0xF4, al
        jmp $
; Each timer is stopped by its own handler, as the next interrupt may be due before anything else is executed.
beat:   cmp byte [COUNT], FIRST
        jae .end
        call tell
        cmp byte [COUNT], FIRST
        jb .end
        mov dword [fs:esi + 0x320], 0x10041
.end:   mov dword [fs:esi + 0xB0], 0
        iret
tick:   push ax
        cmp byte [COUNT], LAST
        jae .end
        call tell
        cmp byte [COUNT], LAST
        jb .end
        mov al, 0xFF
        out 0x21, al
.end:   mov al, 0x20
        out 0x20, al
        pop ax
        iret
tell:   push ax
        push dx
        inc byte [COUNT]
        mov al, [COUNT]
        add al, 'a' - 1
        mov dx, 0x3F8
        out dx, al
        pop dx
        pop ax
        ret
gdtr:   dw 15
        dd gdt
        align 8
gdt:    dq 0
        dq 0x00CF93000000FFFF
        times 510 - ($ - $$) db 0
        dw 0xAA55
