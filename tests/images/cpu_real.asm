; Segment limits in real mode and big real mode.
; ROM: QEMU -bios, v2e run --firmware. A line a check on port E9h: name, for each exception vector@CS.IP/sSP, =DIGEST of
; the general registers and of memory at both ends of the segment AREA. Ends with debug exit 0.
%include "guest.inc"

RESUME          equ 0x600               ; dw: where the handler returns to
SAVED_SP        equ 0x602               ; dw: the stack pointer to go on with
STACK           equ 0x7000
AREA            equ 0x2000              ; a segment, at 20000h
HANDLER_STACK   equ 0x6000

; %1 name (a DB list in braces), %2 the instruction
%macro CHECK 2+
        call mark16
        db 10, %1, 0
        call preset
        mov word [ss:RESUME], %%after
        %2
%%after:
        call outcome
%endmacro
; %1 name, then instructions, each in braces; the first exception ends them
%macro SEQUENCE 2-*
        call mark16
        db 10, %1, 0
        call preset
        mov word [ss:RESUME], %%after
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
%%after:
        call outcome
%endmacro
%macro BOTH 3+
  %assign OFF 0x10000 - %2
        CHECK {%1, '-in'}, %3
  %assign OFF 0x10000 - %2 + 1
        CHECK {%1, '-out'}, %3
  %undef OFF
%endmacro
; On a stack at the segment AREA: name, SP, instructions
%macro STACKED 3-*
        call mark16
        db 10, %1, 0
        call preset
        mov word [RESUME], %%after
        mov word [SAVED_SP], STACK
        mov ax, AREA
        mov ss, ax
        mov esp, %2
  %rep %0 - 2
    %rotate 1
        %2
  %endrep
%%after:
        mov ebx, esp
        mov dx, 0
        mov ss, dx
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
        mov es, ax
        mov fs, ax
        xor ax, ax
        mov gs, ax
        mov eax, cr0
        and al, ~0x0C
        mov cr0, eax

; ----- the last byte of a segment
        CHECK 'load-8-in', mov al, [fs:0xFFFF]
        BOTH 'load-16', 2, mov ax, [fs:OFF]
        BOTH 'load-32', 4, mov eax, [fs:OFF]
        CHECK 'store-8-in', mov [fs:0xFFFF], dl
        BOTH 'store-16', 2, mov [fs:OFF], dx
        BOTH 'store-32', 4, mov [fs:OFF], edx
        BOTH 'moffs-store-16', 2, mov [fs:OFF], ax
        BOTH 'add-16', 2, add [fs:OFF], ax
        BOTH 'xchg-16', 2, xchg [fs:OFF], ax
        BOTH 'inc-16', 2, inc word [fs:OFF]
        BOTH 'shl-32', 4, shl dword [fs:OFF], 1
        BOTH 'cmp-16', 2, cmp word [fs:OFF], 5
        BOTH 'mul-16', 2, mul word [fs:OFF]
        BOTH 'movzx-16', 2, movzx eax, word [fs:OFF]
        BOTH 'bt-16', 2, bt word [fs:OFF], 1
        BOTH 'fld-64', 8, fld qword [fs:OFF]
        BOTH 'fnstcw', 2, fnstcw [fs:OFF]
        BOTH 'sgdt', 6, sgdt [fs:OFF]
        BOTH 'mov-sreg', 2, mov [fs:OFF], ds
        SEQUENCE 'push-mem-in', {push word [fs:0xFFFE]}, {pop ax}
        CHECK 'push-mem-out', push word [fs:0xFFFF]
        CHECK 'les-out', les ax, [fs:0xFFFD]
        CHECK 'bound-out', bound ax, [fs:0xFFFD]
        CHECK 'jmp-far-out', jmp far [fs:0xFFFD]
        CHECK 'call-mem-out', call [fs:0xFFFF]
        CHECK 'lgdt-out', lgdt [fs:0xFFFB]
        CHECK 'bx-si-wraps', mov al, [fs:bx + si + 0xF0F0]
        CHECK 'bx-wraps-word', mov ax, [fs:bx + 0xF0FF]
        CHECK 'bx-wraps-below', mov ax, [fs:bx - 0xF02]
        CHECK 'bp-uses-ss', mov [bp + 0x1FF], ax
        CHECK 'lea-wraps', lea ax, [fs:bx + si + 0xFFFF]

; ----- 32-bit addresses
        CHECK 'a32-in', mov al, [fs:dword 0xFFFF]
        CHECK 'a32-out', mov al, [fs:dword 0x10000]
        CHECK 'a32-word-out', mov ax, [fs:dword 0xFFFF]
        CHECK 'a32-base-out', mov al, [fs:ebx + 0xF100]
        CHECK 'a32-base-in', mov al, [fs:ebx + 0xF0FF]
        CHECK 'a32-high', mov [fs:dword 0x80000000], al
        CHECK 'a32-negative', mov [fs:esi - 0x11], al
        SEQUENCE 'a32-esp-out', {mov esi, esp}, {mov al, [esp + 0x9000]}
        SEQUENCE 'a32-movsb-out', {mov esi, 0x10000}, {a32 fs movsb}
        SEQUENCE 'a32-stosb-out', {mov edi, 0x10000}, {a32 stosb}
        SEQUENCE 'a16-stosb-upper-ignored', {mov edi, 0x10000}, {stosb}
        SEQUENCE 'a32-rep-stosb-crosses', {mov edi, 0xFFFF}, {mov ecx, 3}, {a32 rep stosb}

; ----- string instructions at the end
        SEQUENCE 'lodsw-out', {mov si, 0xFFFF}, {fs lodsw}
        SEQUENCE 'stosw-out', {mov di, 0xFFFF}, {stosw}
        SEQUENCE 'stosd-out', {mov di, 0xFFFD}, {stosd}
        SEQUENCE 'movsw-source-out', {mov si, 0xFFFF}, {fs movsw}
        SEQUENCE 'movsw-target-out', {mov di, 0xFFFF}, {fs movsw}
        SEQUENCE 'cmpsw-out', {mov di, 0xFFFF}, {fs cmpsw}
        SEQUENCE 'scasw-out', {mov di, 0xFFFF}, {scasw}
        SEQUENCE 'rep-stosb-wraps', {mov di, 0xFFFE}, {mov cx, 4}, {rep stosb}
        SEQUENCE 'rep-stosw-crosses', {mov di, 0xFFFD}, {mov cx, 4}, {rep stosw}
        SEQUENCE 'rep-stosw-wraps', {mov di, 0xFFFC}, {mov cx, 4}, {rep stosw}
        SEQUENCE 'rep-movsw-down', {mov si, 3}, {mov di, 3}, {mov cx, 3}, {std}, {fs rep movsw}
        SEQUENCE 'insw-out', {mov di, 0xFFFF}, {mov dx, 0x80}, {insw}
        SEQUENCE 'outsw-out', {mov si, 0xFFFF}, {mov dx, 0x80}, {fs outsw}

; ----- the stack: SP wraps between elements, an element does not
        STACKED 'push-at-0', 0, {push ax}
        STACKED 'push-dword-at-0', 0, {push eax}
        STACKED 'push-dword-at-2', 2, {push eax}
        STACKED 'pop-at-fffe', 0xFFFE, {pop ax}
        STACKED 'pop-dword-at-fffc', 0xFFFC, {pop eax}
        STACKED 'pop-dword-at-fffe', 0xFFFE, {pop eax}
        STACKED 'push-upper-esp-ignored', 0x10000, {push ax}
        STACKED 'pusha-at-8', 8, {pusha}
        STACKED 'popa-wraps', 0xFFF8, {popa}, {mov esi, 0}, {mov edi, 0}, {mov ebp, 0}
        STACKED 'pushad-at-22', 22, {pushad}
        STACKED 'popad-at-fff2', 0xFFF2, {popad}
        STACKED 'pushfd-at-2', 2, {pushfd}
        STACKED 'call-at-0', 0, {call $ + 3}
        STACKED 'o32-call-at-2', 2, {o32 call rom}
        STACKED 'enter-at-0', 0, {enter 4, 0}, {mov ebp, 0}
        STACKED 'enter-wraps', 2, {enter 4, 0}, {mov ebp, 0}
        STACKED 'o32-enter-at-2', 2, {o32 enter 4, 0}
        STACKED 'leave', 0x10, {mov bp, 0xFFFE}, {leave}, {mov ebp, 0}
        STACKED 'leave-dword-out', 0x10, {mov bp, 0xFFFE}, {o32 leave}
        STACKED 'push-mem-first', 2, {push dword [fs:0xFFFD]}
        STACKED 'pop-mem-out', 0x10, {pop word [fs:0xFFFF]}
        STACKED 'ret-out', 0xFFFE, {o32 ret}
        STACKED 'retf-out', 0xFFFE, {o32 retf}
        STACKED 'iret-out', 0xFFFE, {o32 iret}
        STACKED 'bp-word-out', 0x10, {mov bp, 0xFFFF}, {mov ax, [bp]}
        STACKED 'bp-word-in', 0x10, {mov bp, 0xFFFE}, {mov ax, [bp]}, {mov bp, 0}
        STACKED 'ss-override-out', 0x10, {mov ax, [ss:0xFFFF]}

; ----- control transfers past 64 KiB
        CHECK 'o32-jmp-beyond', o32 jmp dword (0x12345)
        SEQUENCE 'o32-jmp-register', {mov eax, 0x10000}, {jmp eax}
        SEQUENCE 'o32-call-register', {mov eax, 0x12345}, {call eax}
        CHECK 'o32-jz-taken', db 0x66, 0x0F, 0x84, 0, 0, 1, 0
        CHECK 'o32-jnz-not-taken', db 0x66, 0x0F, 0x85, 0, 0, 1, 0
        SEQUENCE 'o32-ret-beyond', {push dword 0x10000}, {o32 ret}
        mov sp, STACK
        SEQUENCE 'o32-loop-beyond-not', {mov cx, 1}, {db 0x66, 0xE2, 0}
        CHECK 'o32-jmp-far-beyond', jmp dword (ROM >> 4):0x12345
        CHECK 'o32-jmp-far-top', jmp dword (ROM >> 4):0xFFFFFFFF
        SEQUENCE 'o32-jmp-far-memory', {mov dword [es:8], 0x10000}, {mov word [es:12], ROM >> 4}, {o32 jmp far [es:8]}
        SEQUENCE 'o32-call-far-memory', {mov dword [es:8], 0x10000}, {mov word [es:12], ROM >> 4}, {o32 call far [es:8]}
        CHECK 'o32-call-far-beyond', call dword (ROM >> 4):0x10000
        STACKED 'o32-retf-beyond', 0x8000, {push dword ROM >> 4}, {push dword 0x10000}, {o32 retf}
        STACKED 'o32-retf-4-beyond', 0x8000, {push dword ROM >> 4}, {push dword 0x10000}, {o32 retf 4}
        STACKED 'o32-iret-beyond', 0x8000, {push dword 2}, {push dword ROM >> 4}, {push dword 0x10000}, {o32 iret}
        SEQUENCE 'runs-off-the-end', {mov word [es:0xFFFE], 0x9090}, {jmp AREA:0xFFFE}
        SEQUENCE 'two-bytes-at-the-end', {mov byte [es:0xFFFF], 0xB0}, {jmp AREA:0xFFFF}
        SEQUENCE 'jump-wraps', {mov dword [es:0xFFFC], 0x0002EBF4}, {mov word [es:0], 0x9090}, {jmp AREA:0xFFFD}

; ----- big real mode: limits loaded in protected mode stay
        lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        mov bx, BIG
        mov fs, bx
        mov bx, SMALL
        mov gs, bx
        mov bx, READ_ONLY
        mov es, bx
        and al, 0xFE
        mov cr0, eax
        CHECK 'big-high', mov al, [fs:dword 0x21000]
        CHECK 'big-word-at-ffff', mov ax, [fs:0xFFFF]
        CHECK 'big-top', mov eax, [fs:dword 0xFFFFFFF0]
        CHECK 'small-in', mov al, [gs:0xFFF]
        CHECK 'small-out', mov al, [gs:0x1000]
        CHECK 'small-word-out', mov ax, [gs:0xFFF]
        CHECK 'small-store-out', mov [gs:0x1000], al
        SEQUENCE 'small-lodsb-out', {mov si, 0x1000}, {gs lodsb}
        CHECK 'read-only-load', mov al, [es:0]
        CHECK 'read-only-store', mov [es:0], al
        mov ax, AREA
        mov gs, ax
        CHECK 'small-after-selector-out', mov al, [gs:0x1000]
        CHECK 'small-after-selector-in', mov al, [gs:0xFFF]
        mov fs, ax
        CHECK 'big-after-selector', mov [fs:dword 0x10000], al
        mov es, ax
        CHECK 'read-only-after-selector', mov [es:0], al
        CHECK 'cs-store', mov [cs:0xFFE0], al      ; unused bytes of the ROM
        call mark16
        db 10, 'end', 0
        mov al, 0
        jmp finish16

; ----- routines
preset:
        push ds
        mov ax, AREA
        mov ds, ax
        mov eax, 0x03020100
        xor di, di
        mov cx, 16
        call fill_edge
        mov di, 0xFFC0
        mov cx, 16
        call fill_edge
        pop ds
        fninit
        cmp eax, eax
        mov eax, 0x11223344
        mov ecx, 2
        mov edx, 0x55667788
        mov ebx, 0x00000F00
        mov ebp, 0x00000E00
        mov esi, 0x00000010
        mov edi, 0x00000040
        ret
fill_edge:
        mov [di], eax
        add eax, 0x04040404
        add di, 4
        loop fill_edge
        ret

outcome:
        pushad
        push ds
        cld
        xor edx, edx
        mov cx, 8
        mov si, sp
        add si, 2
        push ss
        pop ds
        call sum
        mov ax, AREA
        mov ds, ax
        xor si, si
        mov cx, 16
        call sum
        mov si, 0xFFC0
        mov cx, 16
        call sum
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, edx
        call hex8_16
        pop ds
        popad
        ret
sum:    rol edx, 5
        add edx, [si]
        add si, 4
        loop sum
        ret

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
        push bp
        mov bp, sp                      ; [bp] BP, AX, IP, CS, FLAGS
        push eax
        mov ah, al
        mov al, ' '
        out 0xE9, al
        mov al, ah
        call hex2_16
        mov al, '@'
        out 0xE9, al
        mov ax, [bp + 6]
        call hex4_16
        mov al, '.'
        out 0xE9, al
        mov ax, [bp + 4]
        call hex4_16
        mov al, '/'
        out 0xE9, al
        mov al, 's'
        out 0xE9, al
        lea ax, [bp + 4]
        call hex4_16
        push ds
        xor ax, ax
        mov ds, ax
        mov ax, [RESUME]
        mov [bp + 4], ax
        mov word [bp + 6], ROM >> 4
        pop ds
        pop eax
        pop bp
        pop ax
        iret

        align 8
gdt:            dq 0
BIG             equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x93, 0x8
SMALL           equ $ - gdt
        SEGMENT AREA << 4, 0xFFF, 0x93, 0
READ_ONLY       equ $ - gdt
        SEGMENT AREA << 4, 0xFFFF, 0x91, 0
gdtr:           dw $ - gdt - 1
                dd ROM + (gdt - rom)
RESET_VECTOR start
