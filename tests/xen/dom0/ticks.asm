; A boot sector that says what it sees at COM1, then counts timer interrupts up to a last one, the 20th unless LAST says
; otherwise, and stays where it is for good.
; Ports 3F8h and 5Eh and the page D0000h belong to the device model, PIC and PIT to the hypervisor.
COUNT   equ 0x600               ; ticks so far
SEEN    equ 0x602               ; what port 5Eh gave
MMIO    equ 0x604               ; what D0014h gave
        org 0x7C00
        bits 16
        cli
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        cld
        mov word [8 * 4], tick
        mov word [8 * 4 + 2], ax
        mov [COUNT], ax
        mov dx, 0x3F8
        mov al, 'A'
        out dx, al
        in ax, 0x5E
        mov [SEEN], ax
        mov si, text
        mov cx, text.end - text
        rep outsb
        std                     ; the same letters backwards
        mov si, text.end - 1
        mov cx, text.end - text
        rep outsb
        cld
        mov ax, 0xD000
        mov es, ax
        mov dword [es:0x10], 0x11223344
        mov eax, [es:0x14]
        mov [MMIO], eax
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
        mov al, 0x34            ; 8254: counter 0, mode 2, 65536: 18.2 Hz
        out 0x43, al
        mov al, 0
        out 0x40, al
        out 0x40, al
        mov dx, 0x3F8
        mov al, '~'             ; set up
        out dx, al
        sti
wait_:  hlt
        mov ax, [last]
        cmp [COUNT], ax
        jb wait_
        cli
        mov al, '.'
        out dx, al
        jmp $
tick:   push ax
        inc word [COUNT]
        mov al, 0x20
        out 0x20, al
        pop ax
        iret
text:   db "tick"
.end:
        times 506 - ($ - $$) db 0
last:   dw 20                   ; 7DFAh
        dw 0
        dw 0xAA55
