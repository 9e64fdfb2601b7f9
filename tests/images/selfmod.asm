; Self-modifying code in RAM: each way in which stale translations show. Prints a line a test on debug port E9h,
; "name ok" or "name STALE", then debug exit 0, or 1 if any was stale.
;   next      the instruction behind the one that writes it (a jump between them: SDM vol. 3A, 9.1.3)
;   page      code in another page than the writer's
;   loop      an immediate that is changed in each of 200 turns
;   alias     code written through another linear address (4 GiB segment, A20 on: same physical byte)
;   copy      code replaced by REP MOVSB
;   dma       is not here: devices' writes have tests of their own
; ROM: v2e run --firmware selfmod.bin; QEMU -bios.
%include "guest.inc"
org 0
rom:
GUEST_SERVICES 16
%macro CHECK 2                          ; name; AX is right if equal to %2
        mov bx, %2
        TEST 16, %1
        call verdict
%endmacro
start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7000
        mov byte [0x600], 0             ; how many were stale

; next: code copied to 0000:1000, which changes the immediate of its own MOV
        mov si, next
        mov di, 0x1000
        mov cx, next_end - next
        call copy
        call 0:0x1000
        CHECK 'next', 0x2222

; page: MOV AX, imm16; RETF at 0000:2000, changed from here
        mov byte [0x2000], 0xB8
        mov word [0x2001], 0x1111
        mov byte [0x2003], 0xCB
        call 0:0x2000
        mov word [0x2001], 0x3333
        call 0:0x2000
        CHECK 'page', 0x3333

; loop
        mov cx, 200
        xor dx, dx
.turn:  mov [0x2001], cx
        call 0:0x2000
        add dx, ax
        loop .turn
        mov ax, dx
        CHECK 'loop', 200 * 201 / 2

; alias: the routine at 0000:2000 is also at 0200:0000
        mov ax, 0x0200
        mov es, ax
        mov word [es:1], 0x4444
        xor ax, ax
        mov es, ax
        call 0:0x2000
        CHECK 'alias', 0x4444

; copy
        mov si, other
        mov di, 0x2000
        mov cx, other_end - other
        call copy
        call 0:0x2000
        CHECK 'copy', 0x5555

        mov al, 0
        cmp byte [0x600], 0
        je .done
        mov al, 1
.done:  jmp finish16

verdict:                                ; AX against BX; keeps nothing
        cmp ax, bx
        jne .stale
        call mark16
        db ' ok', 0
        ret
.stale: inc byte [0x600]
        call mark16
        db ' STALE', 0
        ret
copy:                                   ; CX bytes from CS:SI to ES:DI
        mov al, [cs:si]
        inc si
        stosb
        loop copy
        ret

next:
        mov word [cs:0x1000 + (.changed + 1 - next)], 0x2222
        jmp short .changed
.changed:
        mov ax, 0x1111
        retf
next_end:
other:
        mov ax, 0x5555
        retf
other_end:
RESET_VECTOR start
