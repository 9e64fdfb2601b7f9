; Far returns of real mode whose items lie at both ends of a stack of 64 KiB, a line a check. ROM: QEMU -bios, v2e run
; --firmware. A check prints its name, vector@CS.IP/sSP of an exception, and =SP:FLAGS where it has returned, with % for a
; single step behind it. Ends with debug exit 0.
%include "guest.inc"

RESUME          equ 0x600               ; dw: where the handler returns to
STACK           equ 0x7000
AREA            equ 0x2000              ; a segment, at 20000h

; %1 name, %2 SP, %3 bytes of an item, %4 the instruction; the items IP, CS, FLAGS stand at SP, around the end
%macro AROUND 4+
        call mark16
        db 10, %1, 0
        mov word [RESUME], %%after
        mov di, (%2) & 0xFFFF
        mov si, %3
        mov bx, %%after
        call frame
        mov ax, AREA
        mov ss, ax
        mov esp, (%2) & 0xFFFF | 0x12340000
        clc
        %4
%%after:
        mov edx, esp
        mov cx, 0
        mov ss, cx
        mov esp, STACK
        call outcome
%endmacro

org 0
rom:
GUEST_SERVICES 16

start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, STACK
        mov di, 0
        mov cx, 32
        mov ax, stubs
.ivt:   mov [di], ax
        mov word [di + 2], ROM >> 4
        add ax, 8
        add di, 4
        loop .ivt
        mov ax, AREA
        mov fs, ax
%assign back 0
%rep 10
        AROUND {'retf-', '0' + back}, -back, 2, retf
        AROUND {'retf-o32-', '0' + back}, -back, 4, o32 retf
        AROUND {'retf-6-', '0' + back}, -back, 2, retf 6
        AROUND {'retf-far-', '0' + back}, -back, 2, retf 0x8001
        AROUND {'retf-o32-2-', '0' + back}, -back, 4, o32 retf 2
  %if back <> 1 && back <> 3 && back <> 5
        AROUND {'iret-', '0' + back}, -back, 2, iret
        AROUND {'iret-o32-', '0' + back}, -back, 4, o32 iret
        AROUND {'pops-', '0' + back}, -back, 2, {jmp pops}
  %endif
  %assign back back + 1
%endrep
; ----- single steps, and in the middle of a block
        mov word [4], step
        AROUND 'retf-stepped', -2, 2, {jmp stepped}
        AROUND 'retf-o32-stepped', -4, 4, {jmp stepped32}
        AROUND 'retf-behind-others', -2, 2, {jmp others}
; ----- with a limit of 4 GiB, as in big real mode, SP wraps as well
        o32 lgdt [cs:gdtr - rom]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, BIG
        mov ss, bx
        and al, 0xFE
        mov cr0, eax
        xor ax, ax
        mov ss, ax
        AROUND 'big-retf', -2, 2, retf
        AROUND 'big-retf-o32', -4, 4, o32 retf
        AROUND 'big-retf-4', -2, 2, retf 4
        AROUND 'big-iret', -2, 2, iret
        call mark16
        db 10, 'end', 0
        mov al, 0
        jmp finish16

pops:   pop ax
        pop bx
        push bx
        push ax
        retf
stepped: pushf                          ; TF by IRET would be set behind it
        pop ax
        or ah, 1
        push ax
        popf
        retf
stepped32: pushf
        pop ax
        or ah, 1
        push ax
        popf
        o32 retf
others: inc cx
        add dx, cx
        stc
        retf 2

; SI bytes each for IP (BX), CS and FLAGS at FS:DI
frame:  mov ax, bx
        call item
        mov ax, ROM >> 4
        call item
        mov ax, 3
item:   push di
        mov [fs:di], al
        inc di
        mov [fs:di], ah
        inc di
        cmp si, 2
        je .done
        mov byte [fs:di], 0
        inc di
        mov byte [fs:di], 0
.done:  pop di
        add di, si
        ret

outcome:
        pushf
        pop bx
        mov ax, 0
        mov ds, ax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, edx
        call hex8_16
        mov al, ':'
        out 0xE9, al
        mov ax, bx
        and ax, 0x3F01
        call hex4_16
        xor ax, ax
        ret

step:   push ax
        mov al, '%'
        out 0xE9, al
        pop ax
        push bp
        mov bp, sp
        and word [bp + 6], ~0x100
        pop bp
        iret

        align 8
stubs:                                  ; 8 bytes each
%assign vector 0
%rep 32
        push ax
        mov al, vector
        jmp near taken
        align 8
%assign vector vector + 1
%endrep
taken:                                  ; AX, IP, CS, FLAGS
        mov ah, al
        mov al, ' '
        out 0xE9, al
        mov al, ah
        call hex2_16
        mov al, '@'
        out 0xE9, al
        mov bp, sp
        mov ax, [bp + 4]
        call hex4_16
        mov al, '.'
        out 0xE9, al
        mov ax, [bp + 2]
        call hex4_16
        mov al, '/'
        out 0xE9, al
        lea ax, [bp + 2]
        call hex4_16
        xor ax, ax
        mov ss, ax
        mov sp, STACK
        jmp [RESUME]

        align 8
gdt:            dq 0
BIG             equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x93, 0x8
gdtr:           dw $ - gdt - 1
                dd ROM + (gdt - rom)
RESET_VECTOR start
