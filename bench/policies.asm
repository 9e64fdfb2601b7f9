; The guests of bench/policies.py, a ROM each: WORK says which.
;   phased   bursts of reads of a port, and then reads with long gaps, in turns
;   pit      the counter of the 8254 latched and read, again and again
;   pio      sectors of the first disk read by READ SECTORS, its status polled, as a loader without a BIOS does it
;   planar   a screen of 640 by 480 in 16 colours filled, a byte of its planes at a time
;   serial   lines of text sent by the 16550, its status polled before each byte
        bits 16
        org 0
SYSTEM  equ 61h                 ; system control port B: reading it changes nothing
PIT     equ 40h
PIT_CONTROL equ 43h
COM1    equ 3f8h
LSR     equ COM1 + 5
THRE    equ 20h
EXIT    equ 0f4h

; %1 turns of DEC and JNZ
%macro  spin 1
        mov ecx, %1
%%turn: dec ecx
        jnz %%turn
%endmacro

start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 7c00h

%ifidn  WORK, phased
PHASES  equ 4
BURST   equ 400
SPARSE  equ 200
        mov di, PHASES
phase:
        mov bp, BURST
burst:
        in al, SYSTEM
        spin 600                ; 1,200 instructions, less than what an exit is worth
        dec bp
        jnz burst
        mov bp, SPARSE
sparse:
        in al, SYSTEM
        spin 15000              ; 30,000: worth a hop there and back
        dec bp
        jnz sparse
        dec di
        jnz phase
%elifidn WORK, pit
POLLS   equ 3000
        mov bp, POLLS
poll:
        mov al, 0               ; latch counter 0
        out PIT_CONTROL, al
        in al, PIT
        mov ah, al
        in al, PIT
        xchg al, ah
        add bx, ax
        dec bp
        jnz poll
%elifidn WORK, pio
COMMANDS equ 16
SECTORS equ 8                   ; of a command
DATA    equ 1f0h
STATUS  equ 1f7h
CONTROL equ 3f6h
BSY     equ 80h
DRQ     equ 8
READ_SECTORS equ 20h
        mov dx, CONTROL
        mov al, 2               ; nIEN
        out dx, al
        mov bp, COMMANDS
        xor si, si              ; LBA
command:
        mov dx, DATA + 2
        mov al, SECTORS
        out dx, al
        inc dx
        mov ax, si
        out dx, al
        inc dx
        mov al, ah
        out dx, al
        inc dx
        mov al, 0
        out dx, al
        inc dx
        mov al, 0e0h            ; device 0, LBA
        out dx, al
        inc dx
        mov al, READ_SECTORS
        out dx, al
        mov bx, SECTORS
sector: in al, dx
        test al, BSY
        jnz sector
        test al, DRQ
        jz sector
        mov dx, DATA
        mov di, 1000h
        mov cx, 256
        rep insw
        mov dx, STATUS
        mov cx, 256             ; and what was read is looked at
        mov di, 1000h
sum:    add ax, [di]
        add di, 2
        loop sum
        dec bx
        jnz sector
        add si, SECTORS
        dec bp
        jnz command
%elifidn WORK, planar
SEQUENCER equ 3c4h
GRAPHICS equ 3ceh
%macro  word_to 2               ; an index and its value to a port
        mov dx, %1
        mov ax, %2
        out dx, ax
%endmacro
        mov dx, 3c2h            ; misc output: memory on, 480 lines
        mov al, 0e3h
        out dx, al
        word_to SEQUENCER, 0300h
        word_to SEQUENCER, 0f02h        ; all planes
        word_to SEQUENCER, 0604h
        word_to GRAPHICS, 0005h         ; write mode 0
        word_to GRAPHICS, 0506h         ; A0000h
        word_to GRAPHICS, 0ff08h        ; all bits
        mov ax, 0a000h
        mov es, ax
        xor di, di
        mov cx, 640 * 480 / 8
        mov al, 5ah
        rep stosb
%elifidn WORK, serial
LINES   equ 60
        mov dx, COM1 + 3
        mov al, 3               ; 8 bits, no parity
        out dx, al
        mov bp, LINES
line:
        mov si, text
        mov dx, LSR
byte_:
        mov bl, [cs:si]
        test bl, bl
        jz ended
        inc si
wait_:
        in al, dx
        test al, THRE
        jz wait_
        mov al, bl
        sub dx, 5
        out dx, al
        add dx, 5
        jmp byte_
ended:
        spin 5000               ; what the line is about takes a while
        dec bp
        jnz line
        jmp finish
text    db "a line of text of a loader that tells what it does", 13, 10, 0
finish:
%else
%error  "WORK is phased, pit, pio, planar or serial"
%endif
        mov al, 0
        out EXIT, al
        hlt

        times 0fff0h - ($ - $$) db 0ffh
        jmp 0f000h:0
        times 10000h - ($ - $$) db 0ffh
