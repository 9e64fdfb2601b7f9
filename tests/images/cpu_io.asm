; Port permissions: IOPL, the TSS's I/O permission bitmap and its limit, for every form of IN and OUT, at ring 3 and in
; V86 mode; and the instructions that IOPL guards. ROM: QEMU -bios, v2e run --firmware.
; A check prints its name, the frame of an exception, and =EDI:ECX:byte at the target of INS. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
MAP             equ 0x68
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000
BUFFER          equ 0x20000

%macro PORT 2+
        call mark32
        db 10, %1, 0
        call preset
        mov dword [ss:RESUME], F(%%after)
        %2
%%after:
        call outcome
%endmacro
; In V86 mode: DS = 0, ES = BUFFER
%macro PORT86 2+
        call mark16
        db 10, %1, 0
        mov dword [RESUME], %%after
        mov edi, 0x40
        mov ecx, 3
        mov byte [es:0x40], 0x77
        mov esi, 0x40
        %2
%%after:
        mov dword [RESUME], 0
        call outcome86
%endmacro

; From ring 0, as ring 3 cannot print: DX is %2, then the instruction at ring 3 with IOPL 0; #UD when it does not fault
%macro RING3 3+
        call mark32
        db 10, %1, 0
        mov dword [GO_TO], F(%%after)
        mov edx, %2
        TO_RING3 0x0002
        %3
        ud2
%%after:
%endmacro
; The TSS's limit: %1 name, %2 limit
%macro LIMIT 2
        mov word [GDT + TSS_SEL], %2
        mov byte [GDT + TSS_SEL + 5], 0x89
        mov ax, TSS_SEL
        ltr ax
        RING3 {%1, '-byte-low'}, 0, in al, 0x20
        RING3 {%1, '-byte-3c0'}, 0x3C0, in al, dx
        RING3 {%1, '-byte-3f8'}, 0x3F8, in al, dx
        RING3 {%1, '-byte-3ff'}, 0x3FF, in al, dx
        RING3 {%1, '-word-3ff'}, 0x3FF, in ax, dx
        RING3 {%1, '-byte-400'}, 0x400, in al, dx
        RING3 {%1, '-byte-ffff'}, 0xFFFF, in al, dx
%endmacro
%macro TO_RING3 1
        push dword UDATA32
        push dword USER_STACK
        push dword %1
        push dword UCODE32
        push dword F(%%user)
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        iretd
%%user:
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x2100, RING0_STACK, MAP
        ; denied: 80h; 90h-91h; 97h; 9Fh; A3h
        mov byte [TSS + MAP + 0x80 / 8], 0x01
        mov byte [TSS + MAP + 0x90 / 8], 0x83
        mov byte [TSS + MAP + 0x98 / 8], 0x80
        mov byte [TSS + MAP + 0xA0 / 8], 0x08
        mov byte [TSS + MAP + 0x80], 0xFF
        mov eax, TSS_SEL
        ltr ax
        TO_RING3 0x0002

; ----- each form against each neighbour of a denied port
%assign port 0x8D
%rep 10
        mov dx, port
        PORT {'in-byte-', '0' + port / 16, 'A' + port % 16}, in al, dx
        mov dx, port
        PORT {'in-word-', '0' + port / 16, 'A' + port % 16}, in ax, dx
        mov dx, port
        PORT {'in-dword-', '0' + port / 16, 'A' + port % 16}, in eax, dx
  %assign port port + 1
%endrep
        PORT 'out-imm-byte-denied', out 0x80, al
        PORT 'out-imm-word-denied', out 0x7F, ax
        PORT 'out-imm-dword-denied', out 0x7D, eax
        PORT 'out-imm-dword-allowed', out 0x7C, eax
        PORT 'out-imm-byte-next', out 0x81, al
        PORT 'in-imm-byte-denied', in al, 0x80
        PORT 'in-imm-dword-crosses', in eax, 0x9C
        PORT 'in-imm-dword-below', in eax, 0x9B
        mov dx, 0xA0
        PORT 'out-dx-dword-crosses', out dx, eax
        mov dx, 0xA3
        PORT 'out-dx-byte-denied', out dx, al
        mov dx, 0xA4
        PORT 'out-dx-dword-behind', out dx, eax

; ----- string forms: denied before memory is touched
        mov dx, 0x80
        PORT 'insb-denied', insb
        mov dx, 0x7F
        PORT 'insw-denied', insw
        mov dx, 0x7D
        PORT 'insd-denied', insd
        mov dx, 0x81
        PORT 'insb-allowed', insb
        mov dx, 0x80
        PORT 'outsb-denied', outsb
        mov dx, 0x7F
        PORT 'outsw-denied', outsw
        mov dx, 0x80
        PORT 'rep-insb-denied', rep insb
        mov dx, 0x81
        PORT 'rep-outsb-allowed', rep outsb
        mov dx, 0x80
        PORT 'rep-outsb-denied', rep outsb

; ----- what IOPL guards, IOPL 0 at ring 3
        PORT 'cli', cli
        PORT 'sti', sti
        PORT 'hlt', hlt
        PORT 'pushf-popf', pushfd
        call stack_again

; ----- the limit of the TSS: both bytes that are read must be inside
        TO_RING0 32
        LIMIT 'whole', MAP + 0x80
        LIMIT 'no-closing-byte', MAP + 0x7F
        LIMIT 'half', MAP + 0x40
        LIMIT 'short', MAP + 4
        LIMIT 'no-map', MAP - 1

; ----- the map's base
        mov word [TSS + 0x66], 0xFFFF
        RING3 'base-ffff', 0, in al, 0x20
        mov word [GDT + TSS_SEL], 0x2000
        mov byte [GDT + TSS_SEL + 5], 0x89
        mov ax, TSS_SEL
        ltr ax
        mov word [TSS + 0x66], 0x1FFE
        RING3 'base-high-first', 0, in al, 0x07
        RING3 'base-high-second', 0, in al, 0x08
        RING3 'base-high-third', 0, in al, 0x10
        mov word [TSS + 0x66], MAP

; ----- a TSS of 16 bits has no map
        mov byte [GDT + TSS_SEL + 5], 0x81
        mov ax, TSS_SEL
        ltr ax
        mov dword [TSS + 2], RING0_STACK | (DATA32 << 16)
        RING3 'tss16', 0, in al, 0x20
        mov dword [TSS + 0], 0
        mov dword [TSS + 4], RING0_STACK
        mov dword [TSS + 8], DATA32
        mov byte [GDT + TSS_SEL + 5], 0x89
        mov ax, TSS_SEL
        ltr ax

; ----- IOPL 3: ring 3 asks nobody
        TO_RING3 0x3002
        PORT 'iopl-3-denied-port', in al, 0x80
        PORT 'iopl-3-cli', cli
        PORT 'iopl-3-sti-cli', sti
        cli
        mov dx, 0x80
        PORT 'iopl-3-insb', insb
        TO_RING0 32

        mov dx, 0x80
        PORT 'ring-0', in al, dx

; ----- V86 mode, IOPL 3: ports still ask the map
%macro TO_V86 1
        push dword 0                    ; GS FS DS
        push dword 0
        push dword 0
        push dword BUFFER >> 4          ; ES
        push dword 0x500                ; SS
        push dword 0x0FFE
        push dword %1
        push dword ROM >> 4
        push dword %%v86 - rom
        iretd
bits 16
%%v86:
%endmacro
        TO_V86 0x23002
        PORT86 'v86-in-denied', in al, 0x80
        PORT86 'v86-in-word-crosses', in ax, 0x7F
        PORT86 'v86-in-allowed', in al, 0x81
        PORT86 'v86-out-denied', out 0x80, al
        PORT86 'v86-out-dword-crosses', out 0x7D, eax
        mov dx, 0x80
        PORT86 'v86-insb-denied', insb
        mov dx, 0x80
        PORT86 'v86-rep-insb-denied', rep insb
        mov dx, 0x80
        PORT86 'v86-outsb-denied', outsb
        mov dx, 0x8000
        PORT86 'v86-beyond', in al, dx
        PORT86 'v86-cli', cli
        PORT86 'v86-sti', sti
        cli
        PORT86 'v86-pushf', pushf
        pop ax
        PORT86 'v86-pushfd', pushfd
        pop eax
        call hex8_16
        push word 0x3002
        PORT86 'v86-popf', popf
        PORT86 'v86-int-dpl-0', int 0x21
        PORT86 'v86-hlt', hlt
        PORT86 'v86-mov-cr0', mov eax, cr0
        PORT86 'v86-lmsw', lmsw ax
        PORT86 'v86-smsw', smsw ax
        PORT86 'v86-sgdt', sgdt [0x700]
        PORT86 'v86-lidt', lidt [0x700]
        PORT86 'v86-word-at-ffff', mov ax, [es:0xFFFF]
        PORT86 'v86-a32-beyond', mov al, [es:dword 0x10000]
        TO_RING0 16
        TO_V86 0x20002
        PORT86 'v86-0-in-denied', in al, 0x80
        PORT86 'v86-0-in-allowed', in al, 0x81
        PORT86 'v86-0-cli', cli
        PORT86 'v86-0-sti', sti
        PORT86 'v86-0-pushf', pushf
        PORT86 'v86-0-pushfd', pushfd
        PORT86 'v86-0-popf', popf
        PORT86 'v86-0-iret', iret
        PORT86 'v86-0-int', int 0x30
        PORT86 'v86-0-int3', int3
        TO_RING0 16
        TEST 32, 'end'
        mov al, 0
        jmp finish32

stack_again:
        pop eax
        mov esp, USER_STACK
        jmp eax
preset:
        mov edi, BUFFER + 0x40
        mov esi, edi
        mov dword [edi], 0x77777777
        mov ecx, 3
        mov eax, 0x11223344
        ret
outcome:
        pushfd
        pushad
        mov dword [ss:RESUME], 0
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, edi
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, ecx
        call hex2_32
        mov eax, ecx
        call hex4_32
        mov al, ':'
        out 0xE9, al
        mov al, [BUFFER + 0x43]
        call hex2_32
        popad
        popfd
        ret
bits 16
outcome86:
        push eax
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, edi
        call hex8_16
        mov al, ':'
        out 0xE9, al
        mov ax, cx
        call hex4_16
        pop eax
        ret
bits 32

        align 8
GDT32
GDT32_USER
TSS_SEL         equ $ - gdt
        SEGMENT TSS, MAP + 0x80, 0x89, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
