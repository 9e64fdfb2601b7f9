; Exceptions and interrupts where 16 and 32 bits meet in protected mode: 16-bit gates, stacks, call gates and TSSs.
; ROM: QEMU -bios, v2e run --firmware. Output as exc_frames32.inc says, and from the handlers of 16-bit gates
;   vector:code@CS.IP/fFLAGS/hHHHH/sSS:ESP[/uSS:SP]
; Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
TSS16           equ 0xA100
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x200, RING0_STACK, 0x68
        mov eax, TSS_SEL
        ltr ax
        jmp CODE32_ROM:(low - rom)      ; EIP below 64 KiB from here on, so that a 16-bit frame can hold it

%macro GATE16 3                         ; vector, label, type byte
        mov dword [IDT + (%1) * 8], ((%2 - rom) & 0xFFFF) | (CODE16 << 16)
        mov dword [IDT + (%1) * 8 + 4], (%3) << 8
%endmacro
; As FAULTS, with the base of CODE32_ROM
%macro FAULTS_LOW 2+
        TEST 32, %1
        mov dword [ss:RESUME], %%after
        %2
%%after:
        mov dword [ss:RESUME], 0
%endmacro

low:
        GATE16 0x21, frame16_21, 0x86
        GATE16 0x22, frame16_22, 0x87
        GATE16 13, frame16_0d, 0x86
        GATE16 6, frame16_06, 0x86
        GATE16 1, frame16_01, 0x86
        TEST 32, 'int-gate16'
        sti
        int 0x21
        TEST 32, 'trap-gate16'
        int 0x22
        cli
        mov eax, 0x1238
        FAULTS_LOW 'gp-gate16', mov ds, eax
        FAULTS_LOW 'ud-gate16', ud2
        TEST 32, 'tf-gate16'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        TEST 32, 'iret-o16'
        push word 0x0202
        push word CODE32_ROM
        push word .iret16
        o16 iret
        nop
.iret16:
        pushfd
        pop eax
        cli
        call mark32
        db ' flags=', 0
        call hex8_32
        TEST 32, 'popf-o16-keeps-upper'
        push dword 0x40002              ; AC
        popfd
        push word 0x0002
        o16 popf
        pushfd
        pop eax
        push dword 2
        popfd
        call mark32
        db ' flags=', 0
        call hex8_32
        SET_GATE 13, STUB(13), CODE32, 0x8E
        SET_GATE 6, STUB(6), CODE32, 0x8E
        SET_GATE 1, STUB(1), CODE32, 0x8E

; a 16-bit stack: pushes use SP and leave the upper half of ESP alone
        mov eax, STACK16
        mov ss, eax
        mov esp, 0x12340000 | STACK
        TEST 32, 'stack16-gate32'
        int 0x23
        mov eax, 0x1238
        FAULTS_LOW 'stack16-gate32-code', mov ds, eax
        TEST 32, 'stack16-gate16'
        int 0x21
        mov esp, 0x56780000
        mov ebx, [0xFFFC]
        TEST 32, 'stack16-wrap'
        int 0x23
        call print_stack
        mov eax, DATA32
        mov ss, eax
        mov esp, STACK

; from 16-bit code
        jmp CODE16:(code16 - rom)
bits 16
code16:
%macro FAULTS_16 2+
        TEST 16, %1
        mov dword [ss:dword RESUME], %%after
        %2
%%after:
        mov dword [ss:dword RESUME], 0
%endmacro
        TEST 16, 'code16-gate32'
        int 0x23
        TEST 16, 'code16-gate16'
        int 0x21
        FAULTS_16 'code16-ud', ud2
        mov ax, 0x1238
        FAULTS_16 'code16-gp', mov ds, ax
        FAULTS_16 'code16-gp-jmp', jmp 0x1238:0
        xor ecx, ecx
        FAULTS_16 'code16-de', div cx
        mov ax, STACK16
        mov ss, ax
        mov esp, 0x9ABC0000 | STACK
        TEST 16, 'code16-stack16-gate32'
        int 0x23
        TEST 16, 'code16-stack16-gate16'
        int 0x21
        TEST 16, 'code16-stack16-tf'
        pushfd
        or dword [ss:esp - 0x9ABC0000], 0x100
        popfd
        nop
        pushfd
        and dword [ss:esp - 0x9ABC0000], ~0x100
        popfd
        mov ax, DATA32
        mov ss, ax
        mov esp, STACK
        TEST 16, 'code16-call-gate32'
        call GATE32:0
        TEST 16, 'code16-call-gate16'
        call GATE16_CALL:0
        jmp dword CODE32_ROM:(back32 - rom)
bits 32
back32:
        TEST 32, 'call-gate16'
        call GATE16_CALL:0

; ring 3: inward through 16-bit gates, a 16-bit ring 0 stack, a 16-bit TSS
        SET_GATE 0x30, STUB(0x30), CODE32, 0xEE
        GATE16 0x31, frame16_31, 0xE6
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002                ; IOPL 3: the TSS has no I/O bitmap
        push dword UCODE32_ROM
        push dword (user - rom)
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        iretd
user:
        TEST 32, 'user-gate16'
        int 0x31
        TEST 32, 'user-call-gate16'
        push word 0x1111                ; two parameters of a word
        push word 0x2222
        call GATE16_USER:0
        call print_stack
        TEST 32, 'user-call-gate32'
        push dword 0x33333333
        push dword 0x44444444
        call GATE32_USER:0
        call print_stack
        TO_RING0 32
        mov dword [TSS + 8], STACK16
        mov dword [TSS + 4], 0x77770000 | RING0_STACK
        mov esp, 0x6F00
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002                ; IOPL 3: the TSS has no I/O bitmap
        push dword UCODE32_ROM
        push dword (user_stack16 - rom)
        iretd
user_stack16:
        TEST 32, 'user-ring0-stack16'
        int 0x30
        TEST 32, 'user-ring0-stack16-gate16'
        int 0x31
        TO_RING0 32
        mov dword [TSS + 8], DATA32

        mov word [TSS16 + 2], RING0_STACK               ; SP0, SS0 of a 16-bit TSS
        mov word [TSS16 + 4], DATA32
        mov eax, TSS16_SEL
        ltr ax
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002                ; IOPL 3: the TSS has no I/O bitmap
        push dword UCODE32_ROM
        push dword (user_tss16 - rom)
        iretd
user_tss16:
        TEST 32, 'user-tss16'
        int 0x30
        TO_RING0 32
        TEST 32, 'end'
        mov al, 0
        jmp finish32

print_stack:
        push eax
        call mark32
        db ' ss:esp=', 0
        mov eax, ss
        call hex4_32
        mov al, ':'
        out 0xE9, al
        lea eax, [esp + 8]
        call hex8_32
        pop eax
        ret
gate32:                                 ; 32-bit call gate's target, in CODE32_ROM
        call print_stack
        call print_words
        retf
gate32_user:
        call print_stack
        call print_words
        retf 8
print_words:                            ; the 16 bytes above the caller's return address
        push eax
        push ebx
        mov ebx, 3
.next:  mov al, ' '
        out 0xE9, al
        mov eax, [ss:esp + ebx * 4]
        call hex8_32
        inc ebx
        cmp ebx, 7
        jb .next
        pop ebx
        pop eax
        ret

bits 16
gate16:                                 ; 16-bit call gate's target
        mov edx, [ss:esp]               ; return IP, CS
        call mark16
        db ' gate16 esp=', 0
        mov eax, esp
        call hex8_16
        mov al, ' '
        out 0xE9, al
        mov eax, edx
        call hex8_16
        o16 retf
gate16_user:
        mov edx, [ss:esp]
        mov ebx, [ss:esp + 4]           ; parameters
        call mark16
        db ' gate16 esp=', 0
        mov eax, esp
        call hex8_16
        mov al, ' '
        out 0xE9, al
        mov eax, edx
        call hex8_16
        mov al, ' '
        out 0xE9, al
        mov eax, ebx
        call hex8_16
        mov al, ' '
        out 0xE9, al
        mov eax, [ss:esp + 8]           ; SP, SS
        call hex8_16
        o16 retf 4

; Handlers of 16-bit gates, with a 16- or 32-bit stack segment of base 0
%macro FRAME16 2                        ; vector, 1 if there is a code
        %if %2 == 0
        push word -1
        %endif
        push word %1
        jmp frame16
%endmacro
frame16_01:     FRAME16 0x01, 0
frame16_06:     FRAME16 0x06, 0
frame16_0d:     FRAME16 0x0D, 1
frame16_21:     FRAME16 0x21, 0
frame16_22:     FRAME16 0x22, 0
frame16_31:     FRAME16 0x31, 0
frame16:
        pushf
        push ebp
        push eax
        push ebx
        mov bx, ss
        lar ebx, ebx
        mov ebp, esp
        test ebx, 1 << 22               ; SS.B
        jnz .flat
        movzx ebp, bp
.flat:                                  ; [ebp] EBX, EAX, EBP, +12 own FLAGS, +14 vector, +16 code, +18 IP, +20 CS,
                                        ; +22 FLAGS, +24 SP, +26 SS
        push edi
        mov al, ' '
        out 0xE9, al
        mov al, [ss:ebp + 14]
        call hex2_16
        mov al, ':'
        out 0xE9, al
        mov ax, [ss:ebp + 16]
        cmp ax, -1
        je .none
        call hex4_16
        jmp .code
.none:  mov al, '-'
        out 0xE9, al
.code:  mov al, '@'
        out 0xE9, al
        mov ax, [ss:ebp + 20]
        call hex4_16
        mov al, '.'
        out 0xE9, al
        mov ax, [ss:ebp + 18]
        call hex4_16
        call mark16
        db '/f', 0
        mov ax, [ss:ebp + 22]
        call hex4_16
        call mark16
        db '/h', 0
        mov ax, [ss:ebp + 12]
        and ax, 0x4300
        call hex4_16
        call mark16
        db '/s', 0
        mov ax, ss
        call hex4_16
        mov al, ':'
        out 0xE9, al
        lea eax, [esp + 22]
        cmp word [ss:ebp + 16], -1
        je .entry
        sub eax, 2
.entry: call hex8_16
        test byte [ss:ebp + 20], 3
        jz .resume
        call mark16
        db '/u', 0
        mov ax, [ss:ebp + 26]
        call hex4_16
        mov al, ':'
        out 0xE9, al
        mov ax, [ss:ebp + 24]
        call hex4_16
.resume:
        xor eax, eax
        xchg eax, [ss:dword RESUME]
        test eax, eax
        jz .back
        mov [ss:ebp + 18], ax
.back:  pop edi
        pop ebx
        pop eax
        pop ebp
        popf
        lea esp, [esp + 4]
        iret

        align 8
GDT32
CODE32_ROM      equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9B, 0x4
CODE16          equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9B, 0x0
STACK16         equ $ - gdt
        SEGMENT 0, 0xFFFF, 0x93, 0x0
UCODE32_ROM     equ ($ - gdt) | 3
        SEGMENT ROM, 0xFFFF, 0xFB, 0x4
UDATA32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
TSS16_SEL       equ $ - gdt
        SEGMENT TSS16, 0x2B, 0x81, 0
GATE32          equ $ - gdt
        dw gate32 - rom, CODE32_ROM, 0x8C00, 0
GATE16_CALL     equ $ - gdt
        dw gate16 - rom, CODE16, 0x8400, 0
GATE16_USER     equ ($ - gdt) | 3
        dw gate16_user - rom, CODE16, 0xE402, 0
GATE32_USER     equ ($ - gdt) | 3
        dw gate32_user - rom, CODE32_ROM, 0xEC02, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
