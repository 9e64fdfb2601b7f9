; Exceptions and interrupts in 32-bit protected mode: gates, error codes, paging, rings, V86, debug registers.
; ROM: QEMU -bios, v2e run --firmware. Output as exc_frames32.inc says; ends with debug exit 0.
; No test depends on a segment limit or a null data segment being checked.
%include "guest.inc"
%include "exc_frames32.inc"

LDT             equ 0x1800
IDT             equ 0x8F90              ; vectors 0-13 in page 8, the others in page 9
TSS             equ 0xA000
RING0_STACK     equ 0x6800              ; ESP on entry from ring 3
USER_STACK      equ 0x6000
PAGE_DIR        equ 0x10000
PAGE_TABLE      equ 0x11000

ROM32

PROTECTED_START
        mov esi, F(ldt)
        mov edi, LDT
        mov ecx, 16
        rep movsb
        FRESH_TSS TSS, TSS_SIZE, RING0_STACK, 0x68
        mov byte [TSS + 0x68 + 0x80 / 8], 0x01          ; port 80h is denied, others below 400h allowed
        mov byte [TSS + TSS_SIZE - 4], 0xFF

; ----- gates and software interrupts
        TEST 32, 'int3'
        int3
        TEST 32, 'int-n'
        int 0x21
        TEST 32, 'interrupt-gate-clears-if'
        sti
        int 0x21
        SET_GATE 0x22, STUB(0x22), CODE32, 0x8F
        TEST 32, 'trap-gate-keeps-if'
        int 0x22
        cli
        SET_GATE 0x30, STUB(0x30), CODE32, 0xEE
        SET_GATE 3, STUB(3), CODE32, 0xEE
        SET_GATE 0x31, STUB(0x31), CODE32, 0x0E
        SET_GATE 0x32, STUB(0x32), 0, 0x8E
        SET_GATE 0x33, STUB(0x33), DATA32, 0x8E
        SET_GATE 0x34, STUB(0x34), CODE_ABSENT, 0x8E
        SET_GATE 0x35, STUB(0x35), 0x1238, 0x8E
        SET_GATE 0x36, STUB(0x36), CODE32, 0x8C
        SET_GATE 0x37, STUB(0x37), UCODE32, 0x8E
        FAULTS 'int-gate-absent', int 0x31
        FAULTS 'int-gate-null-selector', int 0x32
        FAULTS 'int-gate-data-selector', int 0x33
        FAULTS 'int-gate-code-absent', int 0x34
        FAULTS 'int-gate-selector-beyond-gdt', int 0x35
        FAULTS 'int-gate-is-call-gate', int 0x36
        FAULTS 'int-gate-code-dpl-3', int 0x37
        FAULTS 'int-beyond-idt', int 0x50

; ----- exceptions
        xor ecx, ecx
        FAULTS 'de', div ecx
        TEST 32, 'into-not'
        into
        mov al, 0x7F
        TEST 32, 'into'
        add al, 1
        into
        mov eax, 9
        FAULTS 'br', bound eax, [F(bounds)]
        mov eax, 3
        TEST 32, 'bound-in'
        bound eax, [F(bounds)]
        FAULTS 'ud', ud2
        FAULTS 'ud-lock', db 0xF0, 0x90
        FAULTS 'ud-mov-cs', db 0x8E, 0xC8
        FAULTS 'ud-lea-register', db 0x8D, 0xC0
        FAULTS 'ud-les-register', db 0xC4, 0xC0, 0, 0, 0, 0
        FAULTS 'ud-cr5', db 0x0F, 0x20, 0xE8
        FAULTS 'ud-segment-7', db 0x8E, 0xF8
        FAULTS 'gp-16-bytes', db 15 dup (0x66), 0x90
        mov eax, cr0
        mov ebx, eax
        or al, 8                        ; TS
        mov cr0, eax
        FAULTS 'nm', fnop
        mov cr0, ebx
        FAULTS 'nm-clear', fnop

; ----- selectors
        mov eax, 0x1238
        FAULTS 'gp-ds-beyond-gdt', mov ds, eax
        mov eax, 0x1238 | 3
        FAULTS 'gp-ds-beyond-gdt-rpl', mov ds, eax
        mov eax, CODE_XO
        FAULTS 'gp-ds-execute-only', mov ds, eax
        mov eax, DATA_ABSENT
        FAULTS 'np-ds', mov ds, eax
        FAULTS 'np-es', mov es, eax
        mov eax, TSS_SEL
        FAULTS 'gp-fs-system', mov fs, eax
        mov eax, 0x0C
        FAULTS 'gp-gs-no-ldt', mov gs, eax
        xor eax, eax
        FAULTS 'gp-ss-null', mov ss, eax
        mov eax, DATA_ABSENT
        FAULTS 'ss-absent', mov ss, eax
        mov eax, CODE32
        FAULTS 'gp-ss-code', mov ss, eax
        mov eax, UDATA32
        FAULTS 'gp-ss-dpl', mov ss, eax
        mov eax, DATA32 | 3
        FAULTS 'gp-ss-rpl', mov ss, eax
        mov eax, DATA_RO
        FAULTS 'gp-ss-read-only', mov ss, eax
        xor eax, eax
        TEST 32, 'null-ds-es'
        mov es, eax
        mov fs, eax
        mov eax, DATA32
        mov es, eax
        mov fs, eax
        FAULTS 'gp-jmp-null', jmp 0:0
        FAULTS 'gp-jmp-data', jmp DATA32:0
        FAULTS 'gp-jmp-beyond-gdt', jmp 0x1238:0
        FAULTS 'np-jmp', jmp CODE_ABSENT:0
        FAULTS 'gp-jmp-dpl-3', jmp UCODE32:0
        FAULTS 'gp-jmp-rpl-1', jmp CODE32 | 1:0
        FAULTS 'np-call-gate', call GATE_ABSENT:0
        FAULTS 'gp-call-gate-null', call GATE_NULL:0
        FAULTS 'np-call-gate-target', call GATE_NP_TARGET:0
        FAULTS 'gp-call-ldt', call LDT_SEL:0
        push dword 0x1238
        push dword 0
        FAULTS 'gp-retf', retf
        add esp, 8
        push dword 2
        push dword DATA32
        push dword 0
        FAULTS 'gp-iret-data', iretd
        add esp, 12
        push dword 2
        push dword CODE_ABSENT
        push dword 0
        FAULTS 'np-iret', iretd
        add esp, 12
        push dword 2
        push dword 0
        push dword 0
        FAULTS 'gp-iret-null', iretd
        add esp, 12
        push dword DATA32               ; SS of ring 0 for a return to ring 3
        push dword USER_STACK
        push dword 2
        push dword UCODE32
        push dword 0
        FAULTS 'gp-iret-outer-ss', iretd
        mov dword [esp + 16], UDATA_ABSENT
        FAULTS 'ss-iret-outer-absent', iretd
        mov dword [esp + 16], 0
        FAULTS 'gp-iret-outer-ss-null', iretd
        add esp, 20
        mov eax, 0x1238
        FAULTS 'gp-lldt', lldt ax
        mov eax, DATA32
        FAULTS 'gp-lldt-data', lldt ax
        FAULTS 'gp-ltr-data', ltr ax
        mov eax, TSS_ABSENT
        FAULTS 'np-ltr', ltr ax
        xor eax, eax
        FAULTS 'gp-ltr-null', ltr ax
        mov eax, TSS_SEL
        FAULTS 'ltr', ltr ax
        FAULTS 'gp-ltr-busy', ltr ax
        mov eax, LDT_SEL
        FAULTS 'lldt', lldt ax
        mov eax, 0x0C
        FAULTS 'ldt-data', mov gs, eax
        mov eax, 0x04
        FAULTS 'np-ldt-data', mov gs, eax
        mov eax, DATA32
        mov gs, eax

; ----- single step and debug registers
        TEST 32, 'tf'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        mov eax, ss
        mov ss, eax                     ; no trap between this and the next
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        TEST 32, 'tf-int'
        pushfd
        or dword [esp], 0x100
        popfd
        int 0x21
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        mov eax, F(.bp)
        mov dr0, eax
        mov eax, 0x00000401             ; L0, execute
        mov dr7, eax
        TEST 32, 'dr-execute'
        mov dword [RESUME], F(.bp2)
        nop
.bp:    nop                             ; reported before it executes
.bp2:   mov dword [RESUME], 0
        call print_dr6
        mov eax, F(.rf)
        mov dr0, eax
        TEST 32, 'dr-execute-rf'
        push dword 0x10002              ; RF holds the breakpoint off once
        push dword CODE32
        push dword F(.rf)
        iretd
.rf:    nop
        xor eax, eax
        mov dr7, eax
        call print_dr6
        mov eax, 0x500
        mov dr1, eax
        mov eax, 0x00D0040C             ; L1 G1, write, 4 bytes
        mov dr7, eax
        TEST 32, 'dr-write'
        mov dword [0x500], 1            ; a trap behind it
        nop
        TEST 32, 'dr-write-misses'
        mov dword [0x504], 1
        mov edx, [0x500]
        nop
        call print_dr6
        mov eax, 0x00F0040C             ; read or write
        mov dr7, eax
        TEST 32, 'dr-read'
        mov dl, [0x503]
        nop
        xor eax, eax
        mov dr7, eax
        call print_dr6
        mov eax, 0x2400                 ; GD: general detect
        mov dr7, eax
        FAULTS 'dr-general-detect', mov eax, dr3
        mov eax, dr7
        call mark32
        db ' dr7=', 0
        call hex8_32
        xor eax, eax
        mov dr7, eax
        call print_dr6

; ----- paging: 4 KiB pages, first 4 MiB to themselves
        mov edi, PAGE_DIR
        mov ecx, 1024
        xor eax, eax
        rep stosd
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov dword [PAGE_DIR + 4], 0x00600083            ; 4 MiB page with a reserved bit set (21)
        mov edi, PAGE_TABLE
        mov eax, 7
        mov ecx, 1024
.pte:   stosd
        add eax, 0x1000
        loop .pte
        mov dword [PAGE_TABLE + 0x50 * 4], 0            ; not present, for V86
        mov dword [PAGE_TABLE + 0x300 * 4], 0           ; not present
        mov dword [PAGE_TABLE + 0x301 * 4], 0x301005    ; read-only
        mov dword [PAGE_TABLE + 0x302 * 4], 0x302003    ; supervisor
        mov eax, PAGE_DIR
        mov cr3, eax
        mov eax, cr4
        or eax, 0x10                    ; PSE
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80010000              ; PG, WP
        mov cr0, eax
        FAULTS 'pf-read', mov eax, [0x300123]
        FAULTS 'pf-write', mov dword [0x300456], 1
        FAULTS 'pf-write-read-only', mov dword [0x301FFC], 1
        FAULTS 'pf-read-modify-write', inc dword [0x301010]
        FAULTS 'pf-crossing', mov dword [0x2FFFFE], 1
        FAULTS 'pf-crossing-read-only', mov dword [0x300FFE], 1
        FAULTS 'pf-reserved-bit', mov eax, [0x400000]
        FAULTS 'pf-not-present-directory', mov eax, [0x800000]
        mov eax, 0x300000
        FAULTS 'pf-fetch', jmp eax
        mov byte [0x2FFFFF], 0xB8       ; MOV EAX, imm32, whose operand is in the absent page
        mov eax, 0x2FFFFF
        FAULTS 'pf-fetch-crossing', jmp eax
        TEST 32, 'pf-rep-movsd'         ; two iterations are done
        mov esi, 0x301FF8
        mov edi, 0x2FFFF8
        mov ecx, 4
        mov dword [RESUME], F(.movsd)
        rep movsd
.movsd: call print_strings
        mov eax, cr0
        and eax, ~0x10000
        mov cr0, eax
        FAULTS 'no-wp-write-read-only', mov dword [0x301000], 1
        or eax, 0x10000
        mov cr0, eax

; ----- ring 3, IOPL 0
        push dword UDATA32
        push dword USER_STACK
        push dword 0x0002
        push dword UCODE32
        push dword F(user)
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        mov eax, DATA32
        mov fs, eax                     ; IRET to ring 3 nulls it: its DPL is 0
        iretd
user:
        TEST 32, 'iret-nulls-fs fs='
        mov eax, fs
        call hex4_32
        call mark32
        db ' ds=', 0
        mov eax, ds
        call hex4_32
        TEST 32, 'user-int-dpl-3'
        int 0x30
        TEST 32, 'user-int3'
        int3
        FAULTS 'user-int-dpl-0', int 0x21
        FAULTS 'user-int-1', int 1
        FAULTS 'user-int-beyond-idt', int 0x50
        FAULTS 'user-into-dpl-0', db 0xCD, 4
        xor ecx, ecx
        FAULTS 'user-de', div ecx
        FAULTS 'user-ud', ud2
        FAULTS 'user-pf-supervisor', mov eax, [0x302010]
        FAULTS 'user-pf-supervisor-write', mov [0x302010], eax
        FAULTS 'user-pf-absent', mov [0x300010], eax
        mov eax, 0x302000
        FAULTS 'user-pf-fetch', jmp eax
        FAULTS 'user-hlt', hlt
        FAULTS 'user-mov-cr0', mov cr0, eax
        FAULTS 'user-mov-from-cr0', mov eax, cr0
        FAULTS 'user-mov-dr7', mov dr7, eax
        FAULTS 'user-lgdt', lgdt [0x500]
        FAULTS 'user-lidt', lidt [0x500]
        FAULTS 'user-lldt', lldt ax
        FAULTS 'user-ltr', ltr ax
        FAULTS 'user-clts', clts
        FAULTS 'user-invlpg', invlpg [0x500]
        FAULTS 'user-wbinvd', wbinvd
        mov ecx, 0x1B
        FAULTS 'user-rdmsr', rdmsr
        FAULTS 'user-wrmsr', wrmsr
        FAULTS 'user-cli', cli
        FAULTS 'user-sti', sti
        FAULTS 'user-out-denied', out 0x80, al
        FAULTS 'user-in-denied', in al, 0x80
        FAULTS 'user-in-denied-word', in ax, 0x7F
        FAULTS 'user-in-allowed', in al, 0x21
        mov dx, 0x8000
        FAULTS 'user-in-beyond-bitmap', in al, dx
        TEST 32, 'user-popf-keeps-if-iopl '
        push dword 0x3202
        popfd
        pushfd
        pop eax
        call hex8_32
        mov eax, DATA32
        FAULTS 'user-mov-ds-dpl-0', mov ds, eax
        FAULTS 'user-mov-ss-dpl-0', mov ss, eax
        FAULTS 'user-jmp-dpl-0', jmp CODE32:0
        FAULTS 'user-jmp-dpl-0-rpl-3', jmp CODE32 | 3:0
        FAULTS 'user-call-gate-dpl-0', call GATE_DPL0:0
        TEST 32, 'user-conforming'
        call CODE_CONFORMING:F(conforming)
        TEST 32, 'user-call-gate'
        push dword 0x11111111           ; two parameters
        push dword 0x22222222
        call GATE_RING0:0
        call print_stack
        push dword 2                    ; IRET cannot go inward
        push dword CODE32
        push dword 0
        FAULTS 'user-iret-inward', iretd
        add esp, 12
        push dword CODE32
        push dword 0
        FAULTS 'user-retf-inward', retf
        add esp, 8
        TEST 32, 'user-tf'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        int 0x30
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        TO_RING0 32


; ----- interrupts from the timer; the request is up before the instruction that could take it
        PEND_TIMER
        TEST 32, 'timer-sti-shadow'
        sti
        nop
        nop
        cli
        PEND_TIMER
        TEST 32, 'timer-pop-ss'
        push ss
        push dword 0x202
        popfd
        pop ss
        nop
        cli
        PEND_TIMER
        TEST 32, 'timer-iret-to-user'
        push dword UDATA32
        push dword USER_STACK
        push dword 0x202
        push dword UCODE32
        push dword F(.user)
        iretd
.user:  nop
        TO_RING0 32
        PEND_TIMER
        SET_GATE 0x20, STUB(0x20), CODE32, 0x0E
        TEST 32, 'timer-gate-absent'
        sti
        nop
        nop
        cli
        mov al, 0x20
        out 0x20, al
        SET_GATE 0x20, STUB(0x20), CODE32, 0x8E
        mov al, 0xFF
        out 0x21, al

; ----- faults while an exception is being delivered
        SET_GATE 6, STUB(6), CODE32, 0x0E
        FAULTS 'np-delivering-ud', ud2
        SET_GATE 6, STUB(6), CODE_ABSENT, 0x8E
        FAULTS 'np-delivering-ud-code-absent', ud2
        SET_GATE 6, STUB(6), 0x1238, 0x8E
        FAULTS 'gp-delivering-ud-selector', ud2
        SET_GATE 6, STUB(6), 0, 0x8E
        FAULTS 'gp-delivering-ud-null', ud2
        SET_GATE 6, STUB(6), CODE32, 0x8E
        SET_GATE 3, STUB(3), CODE32, 0x6E
        FAULTS 'np-delivering-int3', int3
        SET_GATE 3, STUB(3), CODE32, 0xEE
        SET_GATE 1, STUB(1), CODE32, 0x0E
        TEST 32, 'np-delivering-db'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        SET_GATE 1, STUB(1), CODE32, 0x8E
        mov dword [PAGE_TABLE + (IDT >> 12) * 4], 0     ; gates 0-13 are out of reach now
        invlpg [IDT]
        mov eax, 0x1238
        FAULTS 'pf-delivering-gp', mov ds, eax
        FAULTS 'pf-delivering-ud', ud2
        FAULTS 'pf-delivering-int3', int3
        FAULTS 'pf-delivering-int', int 5
        FAULTS 'pf-not-delivering-int', int 0x21
        mov dword [PAGE_TABLE + (IDT >> 12) * 4], (IDT & ~0xFFF) | 7
        invlpg [IDT]

; ----- V86, IOPL 3
%macro FAULTS_V86 2+
        TEST 16, %1
        mov dword [RESUME], %%after
        %2
%%after:
        mov dword [RESUME], 0
%endmacro
        push dword 0x5000               ; GS
        push dword 0x5000               ; FS
        push dword 0                    ; DS
        push dword 0x5000               ; ES: page not present
        push dword 0x500                ; SS
        push dword 0x0FFE               ; ESP
        push dword 0x23002              ; VM, IOPL 3
        push dword ROM >> 4             ; CS
        push dword v86 - rom
        iretd
bits 16
v86:
        TEST 16, 'v86-int-dpl-3'
        int 0x30
        TEST 16, 'v86-int3'
        int3
        FAULTS_V86 'v86-int-dpl-0', int 0x21
        FAULTS_V86 'v86-int-beyond-idt', int 0x50
        TEST 16, 'v86-into'             ; its gate has DPL 0
        mov dword [RESUME], .into
        mov al, 0x7F
        add al, 1
        into
.into:  mov dword [RESUME], 0
        xor cx, cx
        FAULTS_V86 'v86-de', div cx
        FAULTS_V86 'v86-hlt', hlt
        FAULTS_V86 'v86-ud', ud2
        FAULTS_V86 'v86-lldt', lldt ax
        FAULTS_V86 'v86-ltr', ltr ax
        FAULTS_V86 'v86-arpl', arpl ax, bx
        FAULTS_V86 'v86-verr', verr ax
        FAULTS_V86 'v86-lgdt', o32 lgdt [0x500]
        FAULTS_V86 'v86-mov-cr0', mov cr0, eax
        FAULTS_V86 'v86-mov-from-cr3', mov eax, cr3
        FAULTS_V86 'v86-clts', clts
        FAULTS_V86 'v86-rdmsr', rdmsr
        FAULTS_V86 'v86-out-denied', out 0x80, al
        FAULTS_V86 'v86-in-allowed', in al, 0x21
        FAULTS_V86 'v86-pf', mov al, [es:0x123]
        FAULTS_V86 'v86-pf-write', mov [es:0x124], al
        TEST 16, 'v86-tf'
        pushfd
        or dword [esp], 0x100
        popfd
        nop
        int 0x30
        nop
        pushfd
        and dword [esp], ~0x100
        popfd
        TEST 16, 'v86-pushfd '
        sti
        pushfd
        pop eax
        cli
        call hex8_16
        PEND_TIMER
        TEST 16, 'v86-timer'
        sti
        nop
        nop
        cli
        mov al, 0xFF
        out 0x21, al
        TO_RING0 16

; ----- V86, IOPL 0
        xor eax, eax
        push eax
        push eax
        push eax
        push eax
        push dword 0x500
        push dword 0x0FFE
        push dword 0x20002              ; VM, IOPL 0
        push dword ROM >> 4
        push dword v86_iopl_0 - rom
        iretd
bits 16
v86_iopl_0:
        FAULTS_V86 'v86-0-int', int 0x30
        FAULTS_V86 'v86-0-cli', cli
        FAULTS_V86 'v86-0-sti', sti
        FAULTS_V86 'v86-0-pushf', pushf
        FAULTS_V86 'v86-0-popf', popf
        FAULTS_V86 'v86-0-iret', iret
        FAULTS_V86 'v86-0-in-allowed', in al, 0x21      ; I/O asks the bitmap alone
        FAULTS_V86 'v86-0-int3', int3                   ; INT3 does not ask IOPL
        TO_RING0 16
        TEST 32, 'end'
        mov al, 0
        jmp finish32

; ----- routines
print_dr6:
        call mark32
        db ' dr6=', 0
        mov eax, dr6
        call hex8_32
        mov eax, 0xFFFF0FF0
        mov dr6, eax
        ret
print_strings:                          ; ESI, EDI, ECX
        push ecx
        push edi
        push esi
        call mark32
        db ' esi,edi,ecx=', 0
        pop eax
        call hex8_32
        mov al, ','
        out 0xE9, al
        pop eax
        call hex8_32
        mov al, ','
        out 0xE9, al
        pop eax
        jmp hex8_32
print_stack:
        call mark32
        db ' cs=', 0
        mov eax, cs
        call hex4_32
        call mark32
        db ' ss:esp=', 0
        mov eax, ss
        call hex4_32
        mov al, ':'
        out 0xE9, al
        lea eax, [esp + 4]
        jmp hex8_32
conforming:
        call print_stack
        retf
gate_ring0:                             ; [esp] EIP, CS, two parameters, ESP, SS
        call print_stack
        mov ebx, esp
.next:  mov al, ' '
        out 0xE9, al
        mov eax, [ss:ebx]
        call hex8_32
        add ebx, 4
        cmp ebx, RING0_STACK
        jb .next
        retf 8

        align 8
GDT32
GDT32_USER
CODE_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x1B, 0xC
DATA_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x13, 0xC
UDATA_ABSENT    equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0x73, 0xC
CODE_XO         equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x99, 0xC
DATA_RO         equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x91, 0xC
CODE_CONFORMING equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9F, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, TSS_SIZE - 1, 0x89, 0
TSS_ABSENT      equ $ - gdt
        SEGMENT TSS, TSS_SIZE - 1, 0x09, 0
LDT_SEL         equ $ - gdt
        SEGMENT LDT, 15, 0x82, 0
GATE_RING0      equ ($ - gdt) | 3
        dw (gate_ring0 - rom) & 0xFFFF, CODE32, 0xEC02, ROM >> 16
GATE_DPL0       equ ($ - gdt) | 3
        dw (gate_ring0 - rom) & 0xFFFF, CODE32, 0x8C02, ROM >> 16
GATE_ABSENT     equ $ - gdt
        dw (gate_ring0 - rom) & 0xFFFF, CODE32, 0x0C00, ROM >> 16
GATE_NULL       equ $ - gdt
        dw (gate_ring0 - rom) & 0xFFFF, 0, 0x8C00, ROM >> 16
GATE_NP_TARGET  equ $ - gdt
        dw (gate_ring0 - rom) & 0xFFFF, CODE_ABSENT, 0x8C00, ROM >> 16
gdt_end:
ldt:
        SEGMENT 0, 0xFFFFF, 0x13, 0xC   ; 04: absent
        SEGMENT 0, 0xFFFFF, 0x93, 0xC   ; 0C
TSS_SIZE        equ 0x68 + 0x80 + 4     ; bitmap of ports 0-3FFh and its closing byte
TABLE_REGISTERS32
bounds:         dd 2, 7
RESET_VECTOR start
