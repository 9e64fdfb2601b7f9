; The built-in BIOS: 64 KiB that end at 4 GiB, and at 1 MiB in the low copy. What needs the CPU is here: the first
; instructions, the vectors, interrupt handlers, waiting; what the services do is Python (emu/firmware/bios/*.py),
; reached by a write of SS:SP to the private port.
;
; A service's frame, from SP on, as emu/firmware/bios/frame.py reads it:
;   0 action (byte), step (byte), AX of a call (word)   4 data (dword)   8 replies (4 bytes)   12 ES   14 DS
;   16 EDI ESI EBP ESP EBX EDX ECX EAX   48 number of the service (word)   50 IP CS FLAGS of the caller
; The service leaves an action there: 0 return; 1 sleep until an interrupt, then ask again; 2 ask again soon; 3 call
; the far pointer in data with AX and CF set, as an INT does, then ask again; 4 call the handler of the pointing
; device, then ask again; 5 send a byte to the pointing device, take its replies, then ask again. The frame is all that
; a service remembers between two questions, so services may interrupt each other and be saved at any instant.
;
; Sources: IBM PS/2 and PC BIOS Interface Technical Reference (entry points, BIOS data area, extended BIOS data area);
; IBM PC/AT Technical Reference (POST's programming of 8259A, 8254 and 8042, shutdown codes); BIOS Boot Specification
; 1.01 (option ROMs).
;
; Assemble: python -m tools.bios, which draws the fonts and runs nasm.
cpu 586                                 ; for CPUID, where there is one; all else is a 486's
bits 16

SERVICE_PORT    equ 0x0C90              ; emu/layout.py: BIOS_SERVICE
BDA             equ 0x40
ROM_SEGMENT     equ 0xF000
STACK_TOP       equ 0x7C00
TICKS_A_DAY     equ 0x1800B0

ACTION          equ 0                   ; offsets in the frame
CALL_AX         equ 2
DATA            equ 4
REPLY           equ 8
SERVICE_POST    equ 0x100               ; numbers beside those of interrupts

%macro AT 1                             ; go on at this offset of the segment
        times (%1) - ($ - $$) db 0xFF
%endmacro
%macro SERVICE 2                        ; name, number: a service entered as by an INT
%1:     push word %2
        jmp service
%endmacro
%macro CALL_SERVICE 1                   ; enter one, and go on behind it
        pushf
        push cs
        call %1
%endmacro

org 0
; The fonts that INT 10h, AX=1130h shows (emu/firmware/bios/font.py).
font_8x16:      incbin "font16.bin"
font_8x14:      incbin "font14.bin"
font_8x8:       incbin "font8.bin"

; -- services

SERVICE irq_keyboard, 0x09
SERVICE int_10, 0x10
SERVICE int_11, 0x11
SERVICE int_12, 0x12
SERVICE int_13, 0x13
SERVICE int_14, 0x14
SERVICE int_15, 0x15
SERVICE int_16_slow, 0x16
SERVICE int_17, 0x17
SERVICE int_18_boot, 0x18
SERVICE int_19_boot, 0x19
SERVICE int_1a_slow, 0x1A
SERVICE int_40, 0x40
SERVICE irq_mouse, 0x74
SERVICE post_service, SERVICE_POST

service:
        pushad
        push ds
        push es
        push dword 0
        push dword 0
        push dword 0
        mov bp, sp
.ask:   mov ax, ss
        shl eax, 16
        mov ax, bp
        mov dx, SERVICE_PORT
        out dx, eax
        mov al, [bp + ACTION]
        test al, al
        jnz .act
        add sp, 12
        pop es
        pop ds
        popad
        add sp, 2
        iret

.act:   dec al
        jnz .not_sleep
        sti
        hlt
        cli
        jmp .ask
.not_sleep:
        dec al
        jnz .not_soon
        mov cx, 50
        loop $
        jmp .ask
.not_soon:
        dec al
        jnz .not_call
        mov ax, [bp + CALL_AX]
        push bp
        stc
        pushf
        call far [bp + DATA]
        pop bp
        mov [bp + CALL_AX], ax
        setc [bp + REPLY]
        jmp .ask
.not_call:
        dec al
        jnz .not_handler
        mov ax, BDA                     ; four words: status, X, Y, Z of the packet in the EBDA at 28h
        mov ds, ax
        mov ds, [0x0E]
        push bp
        xor ax, ax
        mov al, [0x28]
        push ax
        mov al, [0x29]
        push ax
        mov al, [0x2A]
        push ax
        push word 0
        sti
        call far [bp + DATA]
        cli
        add sp, 8
        pop bp
        jmp .ask
.not_handler:
        call aux_exchange
        jmp .ask

; Send the byte at DATA to the pointing device and take as many bytes as DATA + 1 says, the acknowledgement first, to
; REPLY; how many came is left at DATA + 1. Keyboard and interrupts of the 8042 are off meanwhile; its command byte is
; the one at DATA + 2 then.
aux_exchange:
        mov al, 0x60
        call kbc_command
        mov al, 0x54
        call kbc_write
        mov al, 0xD4
        call kbc_command
        mov al, [bp + DATA]
        call kbc_write
        mov bl, [bp + DATA + 1]
        mov byte [bp + DATA + 1], 0
        lea di, [bp + REPLY]
.reply: call kbc_read
        jc .end
        mov [ss:di], al
        inc di
        inc byte [bp + DATA + 1]
        dec bl
        jnz .reply
.end:   mov al, 0x60
        call kbc_command
        mov al, [bp + DATA + 2]
        jmp kbc_write

kbc_command:                            ; AL
        call kbc_ready
        out 0x64, al
        ret
kbc_write:                              ; AL
        call kbc_ready
        out 0x60, al
        ret
kbc_ready:                              ; until the 8042 takes a byte, for some time at most
        push ax
        push cx
        xor cx, cx
.wait:  in al, 0x64
        test al, 2
        loopnz .wait
        pop cx
        pop ax
        ret
kbc_read:                               ; AL; CF: none came for about a second
        push ecx
        mov ecx, 20000000
.wait:  in al, 0x64
        test al, 1
        jnz .read
        dec ecx
        jnz .wait
        stc
        jmp .end
.read:  in al, 0x60
        clc
.end:   pop ecx
        ret

; -- calls that loops ask in vain are answered here. Each takes about 10 us, as on a PC: what polls for a second of
; virtual time shall not do it a million times.
POLL_DELAY      equ 1000

int_16: cmp ah, 0x01
        je .peek
        cmp ah, 0x11
        jne int_16_slow
.peek:  push ds
        push bx
        mov bx, BDA
        mov ds, bx
        mov bx, [0x1A]
        cmp bx, [0x1C]
        pop bx
        pop ds
        jne int_16_slow
        push cx
        mov cx, POLL_DELAY
        loop $
        pop cx
        push bp
        mov bp, sp
        or word [bp + 6], 0x0240        ; ZF: nothing typed; IF, as somebody waits
        pop bp
        iret

int_1a: test ah, ah
        jnz int_1a_slow
        push ds
        mov cx, POLL_DELAY
        loop $
        mov ax, BDA
        mov ds, ax
        mov dx, [0x6C]
        mov cx, [0x6E]
        xor ax, ax
        xchg al, [0x70]                 ; midnight is told once
        pop ds
        push bp
        mov bp, sp
        and byte [bp + 6], 0xFE
        pop bp
        iret

; -- interrupt handlers

irq_0:  push ds
        push ax
        mov ax, BDA
        mov ds, ax
        inc dword [0x6C]
        cmp dword [0x6C], TICKS_A_DAY
        jb .today
        mov dword [0x6C], 0
        inc byte [0x70]
.today: cmp byte [0x40], 0              ; diskette motors run on for a while
        je .motors_done
        dec byte [0x40]
        jnz .motors_done
        push dx
        and byte [0x3F], 0xF0
        mov dx, 0x3F2
        mov al, 0x0C
        out dx, al
        pop dx
.motors_done:
        int 0x1C
        cli
        mov al, 0x20
        out 0x20, al
        pop ax
        pop ds
        iret

irq_1:  push ax
        in al, 0x60
        mov ah, 0x4F                    ; whoever hooks this may change or drop the scan code
        stc
        int 0x15
        jnc .end
        CALL_SERVICE irq_keyboard
.end:   cli
        mov al, 0x20
        out 0x20, al
        pop ax
        iret

irq_6:  push ds
        push ax
        mov ax, BDA
        mov ds, ax
        or byte [0x3E], 0x80
        jmp end_of_master

irq_8:  push ds
        push ax
        mov ax, BDA
        mov ds, ax
        mov al, 0x0C
        out 0x70, al
        in al, 0x71
        mov ah, al
        test ah, 0x40
        jz .alarm
        test byte [0xA0], 1             ; a wait is on: 976 us less
        jz .alarm
        sub dword [0x9C], 976
        ja .alarm
        push bx
        mov al, 0x0B
        out 0x70, al
        in al, 0x71
        and al, 0xBF
        mov bl, al
        mov al, 0x0B
        out 0x70, al
        mov al, bl
        out 0x71, al
        and byte [0xA0], 0xFE
        push es
        les bx, [0x98]
        or byte [es:bx], 0x80           ; it is over
        pop es
        pop bx
.alarm: mov al, 0x0D
        out 0x70, al
        test ah, 0x20
        jz end_of_slave
        sti
        int 0x4A
        cli
        jmp end_of_slave

irq_9:  push ax                         ; comes as IRQ 2 came on a PC
        mov al, 0x20
        out 0xA0, al
        pop ax
        int 0x0A
        iret

irq_12: push ds
        push ax
        CALL_SERVICE irq_mouse
        cli
        jmp end_of_slave

irq_13: push ds
        push ax
        xor al, al
        out 0xF0, al
        mov al, 0x20
        out 0xA0, al
        out 0x20, al
        int 0x02
        pop ax
        pop ds
        iret

irq_14: push ds
        push ax
        mov ax, BDA
        mov ds, ax
        mov byte [0x8E], 0xFF
        jmp end_of_slave

irq_slave:
        push ds
        push ax
end_of_slave:
        mov al, 0x20
        out 0xA0, al
        out 0x20, al
        pop ax
        pop ds
        iret

irq_master:
        push ds
        push ax
end_of_master:
        mov al, 0x20
        out 0x20, al
        pop ax
        pop ds
        iret

; -- boot: the stack is where boot sectors find it; the service leaves where to go on in the frame

int_18: cli
        xor ax, ax
        mov ss, ax
        mov sp, STACK_TOP
        CALL_SERVICE int_18_boot
int_19: cli
        xor ax, ax
        mov ss, ax
        mov sp, STACK_TOP
        CALL_SERVICE int_19_boot

; -- POST

post:
        cli
        cld
        mov al, 0x8F                    ; CMOS 0Fh says what a reset is for; NMI stays off meanwhile
        out 0x70, al
        in al, 0x71
        mov bl, al
        mov al, 0x8F
        out 0x70, al
        xor al, al
        out 0x71, al
        mov al, 0x0D
        out 0x70, al
        in al, 0x71
        mov ax, BDA
        mov ds, ax
        cmp bl, 0x05                    ; continue at 40:67, after an end of interrupt
        jne .not_5
        mov al, 0x20
        out 0xA0, al
        out 0x20, al
        jmp far [0x67]
.not_5: cmp bl, 0x0A                    ; the same without
        jne .not_a
        jmp far [0x67]
.not_a: cmp bl, 0x09                    ; return from a block move, on the stack that 40:67 points to
        jne .not_9
        lss sp, [0x67]
        pop ds
        pop es
        popa
        iret
.not_9: xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK_TOP

        push word [0x472]               ; tells a warm start
        xor di, di                      ; vectors and data area
        mov cx, 0x500 / 2
        rep stosw
        pop word [0x472]
        xor di, di
        mov cx, 0x78
.fill:  mov ax, ignore
        stosw
        mov ax, ROM_SEGMENT
        stosw
        loop .fill
        mov si, vectors
.vector:
        cs lodsw
        cmp ax, -1
        je .vectors_done
        mov di, ax
        shl di, 2
        cs lodsw
        stosw
        mov ax, ROM_SEGMENT
        stosw
        jmp .vector
.vectors_done:
        mov di, 0x60 * 4                ; 60h to 66h are the user's
        mov cx, 7 * 2
        xor ax, ax
        rep stosw

        mov al, 0x11                    ; 8259A: edges, cascade, vectors from 08h and 70h
        out 0x20, al
        out 0xA0, al
        mov al, 0x08
        out 0x21, al
        mov al, 0x70
        out 0xA1, al
        mov al, 0x04
        out 0x21, al
        mov al, 0x02
        out 0xA1, al
        mov al, 0x01
        out 0x21, al
        out 0xA1, al
        mov al, 0xB8                    ; open: timer, keyboard, slave, diskette
        out 0x21, al
        mov al, 0x8E                    ; open: clock, pointing device, coprocessor, disk
        out 0xA1, al

        mov al, 0x34                    ; 8254: counter 0 at 18.2 Hz, 1 for refresh
        out 0x43, al
        xor al, al
        out 0x40, al
        out 0x40, al
        mov al, 0x54
        out 0x43, al
        mov al, 0x12
        out 0x41, al

        mov al, 0x0A                    ; the clock: 32768 Hz, 1024 Hz when asked, 24 hours, BCD
        out 0x70, al
        mov al, 0x26
        out 0x71, al
        mov al, 0x0B
        out 0x70, al
        mov al, 0x02
        out 0x71, al
        mov al, 0x0C
        out 0x70, al
        in al, 0x71
        mov al, 0x0D
        out 0x70, al
        in al, 0x71

        call keyboard_init
        call shadow
        call local_apic
        CALL_SERVICE post_service
        mov ax, 0x0003
        int 0x10
        sti
        call option_roms
        int 0x19

; The 8042 and the keyboard, which has tested itself at power-on.
keyboard_init:
        mov cx, 16
.flush: in al, 0x64
        test al, 1
        jz .empty
        in al, 0x60
        loop .flush
.empty: mov al, 0xAA                    ; self test: 55h
        call kbc_command
        call kbc_read
        mov al, 0x60
        call kbc_command
        mov al, 0x64                    ; no interrupts yet, system flag, pointing device off, scan code set 1
        call kbc_write
        mov al, 0xD1                    ; the 8042 lets go of A20, so that port 92h alone decides
        call kbc_command
        mov al, 0xDD
        call kbc_write
        in al, 0x92
        and al, 0xFE
        or al, 2
        out 0x92, al
        mov al, 0xF6                    ; the keyboard's defaults
        call kbc_write
        call kbc_read
        mov al, 0xF4                    ; scan
        call kbc_write
        call kbc_read
        mov al, 0x60
        call kbc_command
        mov al, 0x65                    ; with interrupts
        jmp kbc_write

; Where an i440FX is, option ROMs are copied into the RAM behind them, which they may write (Intel 82441FX, 3.2.18).
shadow:
        mov ax, OPTION_SEGMENT
        mov ds, ax
        cmp word [0], 0xAA55
        jne .end
        mov eax, 0x80000000
        call pci_read
        cmp eax, 0x12378086
        jne .end
        mov cl, 0x22                    ; reads give the ROM, writes go to RAM
        call .pam
        mov ax, OPTION_SEGMENT
.copy:  mov ds, ax
        mov es, ax
        xor si, si
        xor di, di
        mov cx, 0x1000
        rep movsd
        add ax, 0x400
        cmp ah, OPTION_END >> 8
        jb .copy
        mov cl, 0x33
        call .pam
.end:   ret
.pam:   mov eax, 0x80000058             ; PAM1 to PAM6 are at 5Ah to 5Fh
        mov dx, 0xCF8
        out dx, eax
        mov dl, 0xFE
        mov al, cl
        mov ah, cl
        out dx, ax
        mov eax, 0x8000005C
        mov dl, 0xF8
        out dx, eax
        mov dl, 0xFC
        mov al, cl
        mov ah, cl
        out dx, ax
        mov dl, 0xFE
        out dx, ax
        ret
pci_read:                               ; EAX of configuration address EAX
        mov dx, 0xCF8
        out dx, eax
        mov dl, 0xFC
        in eax, dx
        ret

; Where an i440FX is and the CPU has a local APIC: on, LINT0 the 8259's INTR, LINT1 NMI (MultiProcessor Specification
; 1.4, 3.6.2.2, virtual wire mode). Its page is reached by a flat segment.
local_apic:
        mov eax, 0x80000000
        call pci_read
        cmp eax, 0x12378086
        jne .end
        pushfd                          ; CPUID is there when bit 21 can be changed
        pop eax
        mov ecx, eax
        xor eax, 1 << 21
        push eax
        popfd
        pushfd
        pop eax
        xor eax, ecx
        test eax, 1 << 21
        jz .end
        mov eax, 1
        cpuid
        test dh, 2                      ; a local APIC
        jz .end
        o32 lgdt [cs:gdt_pointer]
        mov eax, cr0
        inc ax
        mov cr0, eax
        mov bx, 8
        mov ds, bx
        mov dword [dword 0xFEE000F0], 0x1FF
        mov dword [dword 0xFEE00350], 0x700
        mov dword [dword 0xFEE00360], 0x400
        mov bl, 16
        mov ds, bx
        dec ax
        mov cr0, eax
        xor ax, ax
        mov ds, ax
.end:   ret
align 4
gdt:    dq 0, 0x00CF93000000FFFF, 0x000093000000FFFF
gdt_pointer:
        dw 23
        dd 0xF0000 + gdt

OPTION_SEGMENT  equ 0xC000
OPTION_END      equ 0xF000
; Each whole option ROM is called at offset 3.
option_roms:
        mov ax, OPTION_SEGMENT
.look:  mov ds, ax
        cmp word [0], 0xAA55
        jne .next
        movzx ecx, byte [2]
        shl ecx, 9
        jz .next
        xor esi, esi
        xor bl, bl
        mov edx, ecx
.sum:   add bl, [si]                    ; 127.5 KiB at most: DS goes on behind 64
        inc si
        jnz .same
        mov di, ds
        add di, 0x1000
        mov ds, di
.same:  dec ecx
        jnz .sum
        test bl, bl
        jnz .next
        push ax
        push edx
        push ax
        push word 3
        mov bp, sp
        xor ax, ax
        mov ds, ax
        call far [bp]
        cld
        add sp, 4
        pop edx
        pop ax
        add edx, 2047
        shr edx, 11
        shl dx, 7
        add ax, dx
        jmp .more
.next:  add ax, 2048 / 16
.more:  cmp ax, OPTION_END
        jb .look
        ret

vectors:
        dw 0x08, irq_0, 0x09, irq_1, 0x0A, irq_master, 0x0B, irq_master, 0x0C, irq_master
        dw 0x0D, irq_master, 0x0E, irq_6, 0x0F, irq_master
        dw 0x10, int_10, 0x11, int_11, 0x12, int_12, 0x13, int_13, 0x14, int_14, 0x15, int_15, 0x16, int_16
        dw 0x17, int_17, 0x18, int_18, 0x19, int_19, 0x1A, int_1a, 0x1E, diskette_table
        dw 0x1F, font_8x8 + 128 * 8, 0x40, int_40, 0x42, int_10, 0x43, font_8x16
        dw 0x70, irq_8, 0x71, irq_9, 0x72, irq_slave, 0x73, irq_slave, 0x74, irq_12, 0x75, irq_13
        dw 0x76, irq_14, 0x77, irq_slave
        dw -1

; -- where software expects entries (IBM PC/AT Technical Reference, BIOS listing)

; INT 10h, AH=1Bh: modes 0 to 7, 0Dh to 13h; lines; character blocks; functions: all of the first byte, blinking and
; display combinations (no light pen, no AH=1Ch); nothing by the save pointers, which are not looked at
AT 0xE000
        db 0xFF, 0xE0, 0x0F, 0, 0, 0, 0, 7, 2, 8, 0xFF, 0x0C, 0, 0, 0, 0
AT 0xE010
        db 'v2e VGA', 0
AT 0xE05B
        jmp post
AT 0xE3FE
        jmp int_13
AT 0xE6F2
        jmp int_19
AT 0xE6F5                               ; the system configuration: INT 15h, AH=C0h
        dw 8
        db 0xFC, 0, 1                   ; AT, submodel, revision
        db 0x74                         ; second 8259A, clock, INT 15h/4Fh is called, an EBDA
        db 0x40, 0, 0, 0                ; INT 16h/09h
AT 0xE739
        jmp int_14
AT 0xE82E
        jmp int_16
AT 0xE987
        jmp irq_1
AT 0xEC59
        jmp int_40
AT 0xEF57
        jmp irq_6
AT 0xEFC7
diskette_table:                         ; 1440 KiB: SRT, DMA, motor off, 512 bytes, 18 sectors, gaps, filler, times
        db 0xAF, 0x02, 0x25, 0x02, 18, 0x1B, 0xFF, 0x6C, 0xF6, 0x0F, 0x08
AT 0xEFD2
        jmp int_17
AT 0xF065
        jmp int_10
AT 0xF841
        jmp int_12
AT 0xF84D
        jmp int_11
AT 0xF859
        jmp int_15
AT 0xFA6E
        incbin "font8.bin", 0, 128 * 8
AT 0xFE6E
        jmp int_1a
AT 0xFEA5
        jmp irq_0
AT 0xFF53
ignore: iret
AT 0xFFF0
        jmp ROM_SEGMENT:post
        db '11/27/26'
        db 0, 0xFC, 0
AT 0x10000
