; Page faults of operands and stacks, a line a check: the page EDGE behind or below which they lie is absent, read-only
; and the supervisor's, in ring 3, in V86 mode with IOPL 3, and in ring 0 with and without CR0.WP (SDM vol. 3A, 4.6 and
; 4.7). ROM: QEMU -bios, v2e run --firmware. A check prints its name behind that of the page, the frame of an exception,
; in ring 0 *LOW BYTE of the page's entry behind it, and =DIGEST:DIGEST of the general registers at the exception and of
; the memory around the page. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
RING0_STACK     equ 0x6800
PAGE_DIR        equ 0x10000
PAGE_TABLE      equ 0x11000
V86_CODE        equ 0x20000
BELOW           equ 0x30000             ; a page of the program's
EDGE            equ BELOW + 0x1000      ; the page in question
ABOVE           equ EDGE + 0x1000       ; a page of the program's
EDGE_ENTRY      equ PAGE_TABLE + (EDGE >> 12) * 4
KIND            equ 0x608               ; dd: which kind of page it is
SAVED           equ 0x60C               ; dd: where the handler has the registers
FRAME           equ 0x18                ; bytes from the top of the stack of ring 0 to them, without SS:ESP

; In ring 3 with stack pointer %2, where a frame to return with stands: %1 name, the rest instructions, each in braces
%macro USER 3-*
        call name
        db %1, 0
        mov ebx, %2
        call preset
        mov dword [SAVED], RING0_STACK - FRAME - 8 - 0x20
        mov dword [GO_TO], F(%%next)
        push dword UDATA32
        push dword %2
        push dword 0x3002               ; IOPL 3
        push dword UCODE32
        push dword F(%%in)
        iretd
%%in:
  %rotate 2
  %rep %0 - 2
        %1
    %rotate 1
  %endrep
        ud2
%%next: call outcome
%endmacro

; In V86 mode with SS and DS at BELOW: %1 name, %2 SP, %3 bytes of its frame's items, then code
%macro V86 4+
        call name
        db %1, 0
        call fill
%if %3 = 2
        mov dword [BELOW + %2], (V86_CODE >> 4) << 16 | 0x100
        mov word [BELOW + %2 + 4], 0x3002
%elif %3 = 4
        mov dword [BELOW + %2], 0x100
        mov dword [BELOW + %2 + 4], V86_CODE >> 4
        mov dword [BELOW + %2 + 8], 0x3002
%endif
        call restrict
        mov esi, F(%%code)
        mov edi, V86_CODE
        mov ecx, %%end - %%code
        rep movsb
        mov dword [SAVED], RING0_STACK - FRAME - 0x18 - 0x20
        mov dword [GO_TO], F(%%next)
        mov eax, 0x11223344
        mov ecx, 2
        push dword 0
        push dword 0
        push dword BELOW >> 4
        push dword BELOW >> 4
        push dword BELOW >> 4
        push dword %2
        push dword 0x23002
        push dword V86_CODE >> 4
        push dword 0
        iretd
bits 16
%%code: %4
        ud2
%%end:
bits 32
%%next: call outcome
%endmacro

; In ring 0: %1 name, the rest instructions, each in braces
%macro RING0 2-*
        call name
        db %1, 0
        mov ebx, BELOW
        call preset
        mov dword [RESUME], F(%%after)
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
%%after:
        call outcome_of_ring0
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x200, RING0_STACK, 0x88
        mov eax, TSS_SEL
        ltr ax
        mov edi, PAGE_DIR
        mov ecx, 1024
        xor eax, eax
        rep stosd
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov edi, PAGE_TABLE
        mov ecx, 1024
        mov eax, 7
.entry: stosd
        add eax, 0x1000
        loop .entry
        mov eax, PAGE_DIR
        mov cr3, eax
        mov eax, cr4
        or eax, 0x601                   ; OSFXSR, OSXMMEXCPT; VME
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80010000              ; PG, WP
        mov cr0, eax
        mov dword [V86_CODE + 0x100], 0x0B0F
        mov dword [V86_CODE + 0x200], (V86_CODE >> 4) << 16 | 0x100
        mov dword [V86_CODE + 0x204], 0x100
        mov dword [V86_CODE + 0x208], V86_CODE >> 4
        mov dword [IDT + 0x31 * 8], ((user_ud - rom) & 0xFFFF) | (UCODE32 & 0xFFFC) << 16
        mov dword [IDT + 0x31 * 8 + 4], ROM | 0xEE00
        mov dword [0x31 * 4], (V86_CODE >> 4) << 16 | 0x100

        mov dword [KIND], 0
checks:
%assign at 0
%rep 3
  %assign x EDGE - at
  %define D '0' + at
        USER {'load-', D}, STACK, {mov eax, [x]}
        USER {'store-', D}, STACK, {mov [x], eax}
        USER {'add-', D}, STACK, {add [x], eax}
        USER {'xchg-', D}, STACK, {xchg [x], eax}
        USER {'cmpxchg-', D}, STACK, {cmpxchg [x], ecx}
        USER {'lock-cmpxchg-', D}, STACK, {lock cmpxchg [x], ecx}
        USER {'xadd-', D}, STACK, {xadd [x], ecx}
        USER {'lock-add-', D}, STACK, {lock add dword [x], 5}
        USER {'neg-', D}, STACK, {neg dword [x]}
        USER {'shl-', D}, STACK, {shl dword [x], 4}
        USER {'shld-', D}, STACK, {shld [x], ecx, 4}
        USER {'btc-', D}, STACK, {btc dword [x], 3}
        USER {'cmp-', D}, STACK, {cmp [x], eax}
        USER {'bt-', D}, STACK, {bt dword [x], 3}
        USER {'pop-', D}, STACK, {push eax}, {pop dword [x]}
        USER {'push-', D}, STACK, {push dword [x]}
        USER {'rep-stosd-', D}, STACK, {mov edi, x - 8}, {mov ecx, 8}, {rep stosd}
        USER {'rep-movsd-', D}, STACK, {mov edi, x - 8}, {mov esi, BELOW}, {mov ecx, 8}, {rep movsd}
        USER {'fstp-80-', D}, STACK, {fld1}, {fstp tword [x - 6]}
        USER {'fistp-', D}, STACK, {fld1}, {fistp qword [x - 3]}
        USER {'fbstp-', D}, STACK, {fld1}, {fbstp [x - 6]}
        USER {'fnstenv-', D}, STACK, {fnstenv [x - 8]}
        USER {'fnsave-', D}, STACK, {fnsave [x - 60]}
        USER {'sgdt-', D}, STACK, {sgdt [x]}
        USER {'sidt-', D}, STACK, {sidt [x - 2]}
        USER {'movups-', D}, STACK, {xorps xmm0, xmm0}, {movups [x - 8], xmm0}
        USER {'movdqu-', D}, STACK, {xorps xmm0, xmm0}, {movdqu [x - 12], xmm0}
        USER {'movupd-index-', D}, STACK, {xorps xmm0, xmm0}, {movupd [ecx * 4 + x - 8 - 2 * 4], xmm0}
        USER {'maskmovdqu-', D}, STACK, {pcmpeqb xmm0, xmm0}, {mov edi, x - 8}, {maskmovdqu xmm0, xmm0}
        USER {'cmpxchg8b-', D}, STACK, {cmpxchg8b [x - 4]}
        USER {'clflush-', D}, STACK, {clflush [x]}
        USER {'push-', D, '-down'}, ABOVE + at, {push eax}
        USER {'pushad-', D, '-down'}, ABOVE + 8 + at, {pushad}
        USER {'pusha-', D, '-down'}, ABOVE + 8 + at, {o16 pusha}
        USER {'enter-', D, '-down'}, ABOVE + at, {enter 0, 0}
        USER {'enter-frame-', D, '-down'}, ABOVE + 4 + at, {enter 0x20, 0}
        USER {'enter-1-', D, '-down'}, ABOVE + 8 + at, {enter 4, 1}
        USER {'enter-3-', D, '-down'}, ABOVE + 8 + at, {mov ebp, BELOW + 0x20}, {enter 0, 3}
        USER {'call-', D, '-down'}, ABOVE + at, {call near F(user_ud)}
        USER {'call-far-', D, '-down'}, ABOVE + 4 + at, {call UCODE32:F(user_ud)}
        USER {'call-far-memory-', D, '-down'}, ABOVE + at, {call far [cs:F(pointer)]}
        USER {'call-gate-', D, '-down'}, ABOVE + 4 + at, {call GATE3:0}
        USER {'call-far-bad-', D, '-down'}, ABOVE + 4 + at, {call 0xFFF8:0}
        USER {'pushad-', D, '-up'}, EDGE + 8 + at, {pushad}
        USER {'popad-', D}, EDGE - 16 + at, {popad}
        USER {'popa-', D}, EDGE - 8 + at, {o16 popa}
        USER {'ret-', D}, x, {ret}
        USER {'leave-', D}, STACK, {mov ebp, x}, {leave}
        USER {'popfd-', D}, x, {popfd}
  %assign at at + 1
%endrep
        USER {'bts-far'}, STACK, {mov ecx, 0x8000}, {bts [BELOW], ecx}
        USER {'bts-16-far'}, STACK, {mov ecx, -0x7FF0}, {bts [ABOVE], cx}
        USER {'btr-far'}, STACK, {mov ecx, -1}, {btr [ABOVE], ecx}
        USER {'fld-80'}, STACK, {fld tword [EDGE - 8]}
        USER {'fstp-80-end'}, STACK, {fld1}, {fstp tword [EDGE - 8]}
        USER {'fbld'}, STACK, {fbld [EDGE - 8]}
        USER {'fldenv-pointers'}, STACK, {fldenv [EDGE - 12]}
        USER {'fldenv-data'}, STACK, {fldenv [EDGE - 24]}
        USER {'frstor'}, STACK, {frstor [EDGE - 60]}
        USER {'fxsave'}, STACK, {fxsave [EDGE - 0x100]}
        USER {'fxsave-all'}, STACK, {fxsave [EDGE]}
        USER {'fxsave-unaligned'}, STACK, {fxsave [EDGE - 8]}
        USER {'maskmovdqu-first'}, STACK, {movq xmm1, [F(ones)]}, {mov edi, EDGE - 8}, {maskmovdqu xmm0, xmm1}
        USER {'maskmovdqu-last'}, STACK, {movhps xmm1, [F(ones)]}, {mov edi, EDGE - 8}, {maskmovdqu xmm0, xmm1}
        USER {'maskmovdqu-none'}, STACK, {pxor xmm1, xmm1}, {mov edi, EDGE}, {maskmovdqu xmm0, xmm1}
        USER {'maskmovq'}, STACK, {pcmpeqb mm0, mm0}, {mov edi, EDGE - 4}, {maskmovq mm0, mm0}
        USER {'movhps'}, STACK, {movhps [EDGE - 4], xmm0}
        USER {'ldmxcsr'}, STACK, {ldmxcsr [EDGE]}
        USER {'stmxcsr'}, STACK, {stmxcsr [EDGE]}
        USER {'clflush-fs'}, STACK, {mov ecx, UDATA32}, {mov fs, ecx}, {clflush [fs:EDGE + 0x7FF]}
        USER {'prefetch'}, STACK, {prefetcht0 [EDGE]}
        USER {'les'}, STACK, {les eax, [EDGE - 4]}
        USER {'bound'}, STACK, {bound eax, [EDGE - 4]}
        USER {'xlat'}, STACK, {mov ebx, EDGE}, {mov al, 0}, {xlatb}
        USER {'lar'}, STACK, {lar eax, [EDGE]}
        USER {'lodsd'}, STACK, {mov esi, EDGE}, {lodsd}
        USER {'cmpsd'}, STACK, {mov esi, BELOW}, {mov edi, EDGE}, {cmpsd}
        USER {'insb'}, STACK, {mov edi, EDGE}, {mov dx, 0xE8}, {insb}
        USER {'outsb'}, STACK, {mov esi, EDGE}, {mov dx, 0xE8}, {outsb}
        USER {'retf'}, EDGE - 4, {retf}
        USER {'iret-cs'}, EDGE - 4, {iretd}
        USER {'iret-flags'}, EDGE - 8, {iretd}
        USER {'call-far-all-down'}, EDGE + 0x40, {call UCODE32:F(user_ud)}
        USER {'call-far-16-down'}, ABOVE + 2, {o16 call [F(pointer)]}
        USER {'int-same-ring'}, ABOVE + 8, {int 0x31}

        V86 {'v86-load'}, 0x4000, 0, mov eax, [0xFFE]
        V86 {'v86-add'}, 0x4000, 0, add [0xFFE], eax
        V86 {'v86-add-all'}, 0x4000, 0, add [0x1000], eax
        V86 {'v86-xchg'}, 0x4000, 0, xchg [0xFFF], ax
        V86 {'v86-sgdt'}, 0x4000, 0, sgdt [0xFFE]
        V86 {'v86-push'}, 0x2000, 0, push ax
        V86 {'v86-pusha'}, 0x2008, 0, pusha
        V86 {'v86-popa'}, 0xFF8, 0, popa
        V86 {'v86-enter'}, 0x2004, 0, enter 4, 1
        V86 {'v86-pushf'}, 0x2000, 0, pushf
        V86 {'v86-call-far'}, 0x2002, 0, call (V86_CODE >> 4):0x100
        V86 {'v86-call-far-all'}, 0x2000, 0, call (V86_CODE >> 4):0x100
        V86 {'v86-call-far-memory'}, 0x2002, 0, call far [cs:0x200]
        V86 {'v86-call-far-32'}, 0x2004, 0, call dword (V86_CODE >> 4):0x100
        V86 {'v86-call-far-32-memory'}, 0x2004, 0, o32 call far [cs:0x204]
        V86 {'v86-retf'}, 0xFFE, 2, retf
        V86 {'v86-iret-cs'}, 0xFFE, 2, iret
        V86 {'v86-iret-flags'}, 0xFFC, 2, iret
        V86 {'v86-iretd-cs'}, 0xFFC, 4, iretd
        V86 {'v86-iretd-flags'}, 0xFF8, 4, iretd
        V86 {'v86-int-redirected'}, 0x2004, 0, int 0x31

        inc dword [KIND]
        cmp dword [KIND], 3
        jb checks

        ; ring 0: with WP (3 to 5 are the same pages), then without (6 to 8)
ring0_checks:
        RING0 'load', {mov eax, [EDGE]}
        RING0 'store', {mov [EDGE], eax}
        RING0 'add', {add [EDGE - 2], eax}
        RING0 'cmpxchg-fails', {cmpxchg [EDGE], ecx}
        RING0 'bt', {bt dword [EDGE], 3}
        RING0 'cmov', {cmovnz eax, [EDGE]}
        RING0 'lea', {lea eax, [EDGE]}
        RING0 'shl-0', {mov cl, 0}, {shl dword [EDGE], cl}
        RING0 'rep-0', {mov ecx, 0}, {mov edi, EDGE}, {rep stosd}
        RING0 'prefetch', {prefetcht0 [EDGE]}
        RING0 'nop', {nop dword [EDGE]}
        RING0 'clflush', {clflush [EDGE]}
        RING0 'invlpg', {invlpg [EDGE]}
        RING0 'fstp-80', {fld1}, {fstp tword [EDGE - 8]}
        RING0 'fldenv', {fldenv [EDGE - 16]}
        RING0 'sgdt', {sgdt [EDGE - 3]}
        RING0 'movups', {movups [EDGE - 8], xmm0}
        inc dword [KIND]
        cmp dword [KIND], 6
        jne .wp
        mov eax, cr0
        and eax, ~0x10000
        mov cr0, eax
.wp:    cmp dword [KIND], 9
        jb ring0_checks
        TEST 32, 'end'
        mov al, 0
        jmp finish32

user_ud:
        ud2

; A new line, and the page's kind before the name that follows the CALL
name:
        mov al, 10
        out 0xE9, al
        mov eax, [KIND]
        mov edi, [F(kinds) + eax * 4]
.next:  mov al, [edi]
        inc edi
        test al, al
        jz .name
        out 0xE9, al
        jmp .next
.name:  jmp mark32

kinds:  dd F(absent), F(read_only), F(supervisor), F(wp_absent), F(wp_read_only), F(wp_supervisor)
        dd F(no_wp_absent), F(no_wp_read_only), F(no_wp_supervisor)
absent: db 'absent-', 0
read_only: db 'read-only-', 0
supervisor: db 'supervisor-', 0
wp_absent: db 'wp-absent-', 0
wp_read_only: db 'wp-read-only-', 0
wp_supervisor: db 'wp-supervisor-', 0
no_wp_absent: db 'no-wp-absent-', 0
no_wp_read_only: db 'no-wp-read-only-', 0
no_wp_supervisor: db 'no-wp-supervisor-', 0
entries: dd 0, EDGE | 5, EDGE | 3

; The three pages where they meet, and a frame of ring 3 at EBX; registers as checks begin with
preset:
        call fill
        mov dword [ebx], F(user_ud)
        mov dword [ebx + 4], UCODE32
        mov dword [ebx + 8], 0x3002
        jmp restrict

; Filled with bytes of the ROM
fill:
        cld
        mov dword [EDGE_ENTRY], EDGE | 7
        mov eax, cr3
        mov cr3, eax
        mov esi, F(stubs)
        mov edi, BELOW
        mov ecx, 0x20 / 4
        rep movsd
        mov edi, EDGE - 0x100
        mov ecx, 0x180 / 4
        rep movsd
        mov edi, ABOVE - 0x80
        mov ecx, 0xC0 / 4
        rep movsd
        fninit
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        ret

restrict:
        mov eax, [KIND]
        xor edx, edx
        mov ecx, 3
        div ecx
        mov eax, [F(entries) + edx * 4]
        mov [EDGE_ENTRY], eax
        mov eax, cr3
        mov cr3, eax
        mov eax, 0x11223344
        mov ecx, 2
        mov edx, 0x55667788
        mov ebx, 0x99AABBCC
        mov ebp, EDGE + 0x40
        mov esi, BELOW
        mov edi, BELOW
        cmp ecx, ecx
        ret

; The same of ring 0, where the handler has given the registers back; the page's entry too
outcome_of_ring0:
        pushad
        mov dword [RESUME], 0
        mov [SAVED], esp
        call mark32
        db ' *', 0
        mov eax, [EDGE_ENTRY]
        call hex2_32
        call outcome
        popad
        ret

outcome:
        cld
        mov dword [EDGE_ENTRY], EDGE | 7
        mov eax, cr3
        mov cr3, eax
        call mark32
        db ' =', 0
        mov esi, [SAVED]
        mov ecx, 8
        call digest
        mov al, ':'
        out 0xE9, al
        xor edx, edx
        mov esi, BELOW
        mov ecx, 0x20 / 4
        call sum
        mov esi, EDGE - 0x100
        mov ecx, 0x180 / 4
        call sum
        mov esi, ABOVE - 0x80
        mov ecx, 0xC0 / 4
        call sum
        mov eax, edx
        jmp hex8_32
digest: xor edx, edx
        call sum
        mov eax, edx
        jmp hex8_32
sum:    rol edx, 5
        add edx, [esi]
        add esi, 4
        loop sum
        ret

        align 8
pointer: dd F(user_ud)
        dw UCODE32
        align 8
ones:   dd 0xFFFFFFFF, 0xFFFFFFFF
        align 8
GDT32
GDT32_USER
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x1FF, 0x89, 0
GATE3           equ ($ - gdt) | 3
        dw (user_ud - rom) & 0xFFFF, UCODE32 & 0xFFFC, 0xEC00, ROM >> 16
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
