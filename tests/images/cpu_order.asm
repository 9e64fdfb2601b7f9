; What comes before a violation of an operand's segment: #UD, the privilege, the selector of a far CALL, NT of an IRET. In
; 32-bit protected mode of ring 3, whose stack is SMALL, a segment of 4 KiB, and in V86 mode. ROM: QEMU -bios, v2e run
; --firmware. Output as cpu_check32.inc says. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000
TSS             equ 0x9000
USER_STACK      equ 0x5000
BEYOND          equ 0x2000      ; of SMALL

; %1 name, %2 the instruction, with SS = SMALL and ESP = 2
%macro CRAMPED 2+
        TEST 32, %1
        mov eax, SMALL
        mov ss, eax
        mov esp, 2
        mov dword [RESUME], %%after + ROM
        %2
%%after:
        mov eax, UDATA32
        mov ss, eax
        mov esp, USER_STACK
        mov dword [RESUME], 0
%endmacro
; %1 name, %2 the bytes of an instruction, with ES = SMALL
%macro BYTES 2+
        TEST 32, %1
        mov eax, SMALL
        mov es, eax
        mov dword [RESUME], %%after + ROM
        db %2
%%after:
        mov dword [RESUME], 0
%endmacro
%define FAR_AWAY 0, 0x50, 0, 0  ; a displacement beyond SMALL
; %1 name, %2 SP, %3 the instruction, in V86 mode with IOPL 0
%macro VIRTUAL 3+
        call mark32
        db 10, %1, 0
        mov dword [RESUME], %%after + ROM
        mov dword [GO_TO], F(%%after)
        %rep 4
        push dword 0            ; GS, FS, DS, ES
        %endrep
        push dword 0x500
        push dword %2
        push dword 0x20002
        push dword ROM >> 4
        push dword %%virtual
        iretd
        bits 16
%%virtual:
        %3
        ud2
        bits 32
%%after:
        mov dword [RESUME], 0
%endmacro

ROM32
CHECK_SERVICES
PROTECTED_START
        FRESH_TSS TSS, 0x100, STACK, 0x68
        mov eax, TSSSEL
        ltr ax
        mov eax, 0x600
        mov cr4, eax
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002
        push dword UCODE32
        push dword F(user)
        iretd
user:   mov eax, UDATA32
        mov ds, eax
        mov es, eax
; ----- a far CALL's selector, then its frame, then its offset
        CRAMPED 'call-absent', call 0x2000:0
        CRAMPED 'call-null', call 0:0
        CRAMPED 'call-data', call UDATA32:0
        CRAMPED 'call-ring-0', call CODE32:0
        CRAMPED 'call-not-present', call NPCODE:0
        CRAMPED 'call-conforming-not-present', call NPCONF:0
        CRAMPED 'call-gate-dpl', call GATE0:0
        CRAMPED 'call-gate-not-present', call GATENP:0
        CRAMPED 'call-gate-inner', call GATEIN:0
        CRAMPED 'call-gate-same', call GATESAME:0
        CRAMPED 'call-gate-same-16', call GATESAME16:0
        CRAMPED 'call-code', call UCODE32:0
        CRAMPED 'call-code-16', o16 call UCODE32:0
        CRAMPED 'call-tss', call TSSSEL:0
        CRAMPED 'call-ldt', call 0x6B:0
        CRAMPED 'call-beyond-limit', call LIMCODE:0x5000
        CRAMPED 'call-memory-null', call far [es:0x600000]
; ----- what returns and pushes has nothing before it
        CRAMPED 'retf', retf
        CRAMPED 'retf-16', o16 retf
        CRAMPED 'iretd', iretd
        CRAMPED 'int3', int3
        CRAMPED 'enter', enter 4, 0
        CRAMPED 'leave', leave
        CRAMPED 'mov-ss', mov ss, [ss:BEYOND]
        CRAMPED 'bound', bound eax, [ss:BEYOND]
; ----- the privilege
        CRAMPED 'lgdt', lgdt [ss:BEYOND]
        CRAMPED 'lidt', lidt [ss:BEYOND]
        CRAMPED 'lldt', lldt [ss:BEYOND]
        CRAMPED 'ltr', ltr [ss:BEYOND]
        CRAMPED 'lmsw', lmsw [ss:BEYOND]
        CRAMPED 'invlpg', invlpg [ss:BEYOND]
        CRAMPED 'sgdt', sgdt [ss:BEYOND]
        CRAMPED 'sldt', sldt [ss:BEYOND]
        CRAMPED 'verr', verr [ss:BEYOND]
        CRAMPED 'outs', {mov esi, BEYOND}, {ss outsb}
        CRAMPED 'outs-32', {mov esi, BEYOND}, {ss outsd}
        CRAMPED 'ins', {mov edi, BEYOND}, {insb}
; ----- #UD
        BYTES 'mov-to-cs', 0x26, 0x8E, 0x0D, FAR_AWAY
        BYTES 'mov-to-6', 0x26, 0x8E, 0x35, FAR_AWAY
        BYTES 'mov-from-7', 0x26, 0x8C, 0x3D, FAR_AWAY
        BYTES 'ff-7', 0x26, 0xFF, 0x3D, FAR_AWAY
        BYTES 'punpckldq-f3', 0x26, 0xF3, 0x0F, 0x62, 0x05, FAR_AWAY
        BYTES 'paddw-f2', 0x26, 0xF2, 0x0F, 0xFD, 0x05, FAR_AWAY
        BYTES 'punpcklqdq-mmx', 0x26, 0x0F, 0x6C, 0x05, FAR_AWAY
        BYTES 'haddps-none', 0x26, 0x0F, 0x7C, 0x05, FAR_AWAY
        BYTES 'movq-none', 0x26, 0x0F, 0xD6, 0x05, FAR_AWAY
        BYTES 'cvtpd-none', 0x26, 0x0F, 0xE6, 0x05, FAR_AWAY
        BYTES 'pextrw-memory', 0x26, 0x0F, 0xC5, 0x05, FAR_AWAY, 1
        BYTES 'maskmovq-memory', 0x26, 0x0F, 0xF7, 0x05, FAR_AWAY
        BYTES 'movmskps-memory', 0x0F, 0x50, 0x05, FAR_AWAY
        BYTES 'movmskpd-memory', 0x66, 0x0F, 0x50, 0x05, FAR_AWAY
        BYTES 'psllw-memory', 0x0F, 0x71, 0x35, FAR_AWAY, 1
        BYTES 'psrld-memory', 0x66, 0x0F, 0x72, 0x15, FAR_AWAY, 1
        BYTES 'psrldq-memory', 0x66, 0x0F, 0x73, 0x1D, FAR_AWAY, 1
        BYTES 'movdq2q-memory', 0xF2, 0x0F, 0xD6, 0x05, FAR_AWAY
        BYTES 'psraw-1', 0x0F, 0x71, 0xC9, 1
        BYTES 'psrldq-mmx', 0x0F, 0x73, 0xD9, 1
        BYTES 'psrldq', 0x66, 0x0F, 0x73, 0xD9, 1
        BYTES 'psllq', 0x0F, 0x73, 0xF1, 1
        BYTES 'movmskps', 0x0F, 0x50, 0xC1
        BYTES 'lgdt-es', 0x26, 0x0F, 0x01, 0x15, FAR_AWAY
; ----- #UD leaves the x87 alone
%macro LEAVES_X87 2+
        TEST 32, %1
        fninit
        fld1
        mov dword [RESUME], %%after + ROM
        db %2
%%after:
        mov dword [RESUME], 0
        sub esp, 32
        fnstenv [esp]
        mov eax, [esp + 4]
        call hex4_32
        mov eax, [esp + 8]
        call hex4_32
        add esp, 32
%endmacro
        LEAVES_X87 'x87-3dnow-bad', 0x0F, 0x0F, 0xC1, 0
        LEAVES_X87 'x87-psraw-1', 0x0F, 0x71, 0xC9, 1
        LEAVES_X87 'x87-psllw-memory', 0x0F, 0x71, 0x35, FAR_AWAY, 1
        LEAVES_X87 'x87-lock-fcmov', 0xF0, 0xDB, 0xCF
        LEAVES_X87 'x87-lock-fld', 0xF0, 0xD9, 0xE8
; ----- NT
        TEST 32, 'iret-nt'
        mov eax, SMALL
        mov ss, eax
        mov dword [RESUME], .after + ROM
        mov esp, 0x800
        pushfd
        or dword [esp], 0x4000
        popfd
        mov esp, 0x1FFE
        iretd
.after: mov eax, UDATA32
        mov ss, eax
        mov esp, USER_STACK
        mov dword [RESUME], 0
        pushfd
        and dword [esp], ~0x4000
        popfd
        TO_RING0 32
; ----- V86 mode: IOPL, and what is undefined there
        VIRTUAL 'v86-pushf', 1, pushf
        VIRTUAL 'v86-pushfd', 3, pushfd
        VIRTUAL 'v86-popf', 0xFFFF, popf
        VIRTUAL 'v86-popfd', 0xFFFD, popfd
        VIRTUAL 'v86-iret', 0xFFFD, iret
        VIRTUAL 'v86-iretd', 0xFFF9, iretd
        VIRTUAL 'v86-retf', 0xFFFD, retf
        VIRTUAL 'v86-call-far', 1, call 0x1000:0
        VIRTUAL 'v86-pusha', 7, pusha
        VIRTUAL 'v86-lgdt', 0x100, {o32 lgdt [ss:0xFFFF]}
        VIRTUAL 'v86-lldt', 0x100, {lldt [ss:0xFFFF]}
        VIRTUAL 'v86-verr', 0x100, {verr [ss:0xFFFF]}
        VIRTUAL 'v86-arpl', 0x100, {arpl [ss:0xFFFF], ax}
        VIRTUAL 'v86-lar', 0x100, {lar ax, [ss:0xFFFF]}
        mov al, 0
        jmp finish32
TABLE_REGISTERS32
inner:                          ; the handler of GATEIN: back, with ESP of ring 3
        push eax
        mov al, 'I'
        out 0xE9, al
        pop eax
        add esp, 4 * 2
        mov eax, [ss:RESUME]
        mov esp, STACK
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002
        push dword UCODE32
        push eax
        iretd
        align 8
GDT32
GDT32_USER
TSSSEL          equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
SMALL           equ ($ - gdt) | 3
        SEGMENT 0x50000, 0xFFF, 0xF3, 4
NPCODE          equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0x7B, 0xC
NPCONF          equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0x7F, 0xC
GATE0           equ ($ - gdt) | 3
        dw 0x1000, CODE32, 0x8C00, 0
GATENP          equ ($ - gdt) | 3
        dw 0x1000, CODE32, 0x6C00, 0
GATEIN          equ ($ - gdt) | 3
        dw inner, CODE32, 0xEC00, 0xF
GATESAME        equ ($ - gdt) | 3
        dw inner, UCODE32, 0xEC00, 0xF
GATESAME16      equ ($ - gdt) | 3
        dw inner, UCODE32, 0xE400, 0
LIMCODE         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFF, 0xFB, 4
gdt_end:
RESET_VECTOR start
