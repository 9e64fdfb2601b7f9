; Segment limits and types in 32-bit protected mode, ring 0: every operand form at the last byte and one further.
; ROM: QEMU -bios, v2e run --firmware. Output as cpu_check32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000

ROM32
CHECK_SERVICES
PROTECTED_START
        mov eax, cr0
        and al, ~0x0C                   ; no EM, TS
        or al, 0x22
        mov cr0, eax
        mov eax, cr4
        or eax, 0x200                   ; OSFXSR
        mov cr4, eax
        mov eax, UP
        mov fs, eax

; ----- expand-up, byte granularity, limit FFFh
        BOTH 'mov-load-8', 1, mov al, [fs:OFF]
        BOTH 'mov-load-16', 2, mov ax, [fs:OFF]
        BOTH 'mov-load-32', 4, mov edx, [fs:OFF]
        BOTH 'mov-store-8', 1, mov [fs:OFF], dl
        BOTH 'mov-store-16', 2, mov [fs:OFF], dx
        BOTH 'mov-store-32', 4, mov [fs:OFF], edx
        BOTH 'mov-imm-8', 1, mov byte [fs:OFF], 0xAA
        BOTH 'mov-imm-16', 2, mov word [fs:OFF], 0xAAAA
        BOTH 'mov-imm-32', 4, mov dword [fs:OFF], 0xAAAAAAAA
        BOTH 'moffs-load-8', 1, mov al, [fs:OFF]
        BOTH 'moffs-load-32', 4, mov eax, [fs:OFF]
        BOTH 'moffs-store-8', 1, mov [fs:OFF], al
        BOTH 'moffs-store-16', 2, mov [fs:OFF], ax
        BOTH 'moffs-store-32', 4, mov [fs:OFF], eax
        BOTH 'add-reg-8', 1, add al, [fs:OFF]
        BOTH 'add-reg-16', 2, add ax, [fs:OFF]
        BOTH 'add-reg-32', 4, add eax, [fs:OFF]
        BOTH 'add-mem-8', 1, add [fs:OFF], al
        BOTH 'add-mem-16', 2, add [fs:OFF], ax
        BOTH 'add-mem-32', 4, add [fs:OFF], eax
        BOTH 'or-imm-8', 1, or byte [fs:OFF], 0x81
        BOTH 'adc-imm-16', 2, adc word [fs:OFF], 0x1234
        BOTH 'sbb-imm-32', 4, sbb dword [fs:OFF], 0x12345678
        BOTH 'and-imm8-32', 4, and dword [fs:OFF], byte 0x0F
        BOTH 'sub-imm8-16', 2, sub word [fs:OFF], byte 0x0F
        BOTH 'xor-mem-32', 4, xor [fs:OFF], ecx
        BOTH 'cmp-mem-8', 1, cmp [fs:OFF], al
        BOTH 'cmp-imm-32', 4, cmp dword [fs:OFF], 0x12345678
        BOTH 'cmp-reg-16', 2, cmp ax, [fs:OFF]
        BOTH 'test-mem-8', 1, test [fs:OFF], al
        BOTH 'test-imm-16', 2, test word [fs:OFF], 0x1234
        BOTH 'test-mem-32', 4, test [fs:OFF], eax
        BOTH 'xchg-8', 1, xchg [fs:OFF], al
        BOTH 'xchg-32', 4, xchg [fs:OFF], eax
        BOTH 'lock-inc-16', 2, lock inc word [fs:OFF]
        BOTH 'inc-8', 1, inc byte [fs:OFF]
        BOTH 'dec-32', 4, dec dword [fs:OFF]
        BOTH 'not-16', 2, not word [fs:OFF]
        BOTH 'neg-32', 4, neg dword [fs:OFF]
        BOTH 'mul-8', 1, mul byte [fs:OFF]
        BOTH 'mul-32', 4, mul dword [fs:OFF]
        BOTH 'imul-one-16', 2, imul word [fs:OFF]
        BOTH 'imul-two-32', 4, imul ecx, [fs:OFF]
        BOTH 'imul-three-16', 2, imul cx, [fs:OFF], 0x123
        BOTH 'imul-three-imm8', 4, imul ecx, [fs:OFF], byte 7
        BOTH 'shl-1-8', 1, shl byte [fs:OFF], 1
        BOTH 'shr-imm-16', 2, shr word [fs:OFF], 3
        BOTH 'sar-cl-32', 4, sar dword [fs:OFF], cl
        BOTH 'rol-cl-8', 1, rol byte [fs:OFF], cl
        BOTH 'rcr-1-32', 4, rcr dword [fs:OFF], 1
        BOTH 'shld-imm', 4, shld [fs:OFF], eax, 5
        BOTH 'shrd-cl-16', 2, shrd [fs:OFF], ax, cl
        BOTH 'movzx-8', 1, movzx eax, byte [fs:OFF]
        BOTH 'movzx-16', 2, movzx eax, word [fs:OFF]
        BOTH 'movsx-8', 1, movsx ax, byte [fs:OFF]
        BOTH 'movsx-16', 2, movsx eax, word [fs:OFF]
        BOTH 'bt-imm', 4, bt dword [fs:OFF], 7
        BOTH 'bts-imm-16', 2, bts word [fs:OFF], 3
        BOTH 'btr-imm', 4, btr dword [fs:OFF], 31
        BOTH 'btc-imm', 4, btc dword [fs:OFF], 33
        BOTH 'bsf', 4, bsf eax, [fs:OFF]
        BOTH 'bsr-16', 2, bsr ax, [fs:OFF]
        BOTH 'xadd-8', 1, xadd [fs:OFF], al
        BOTH 'xadd-32', 4, xadd [fs:OFF], eax
        BOTH 'cmpxchg-8', 1, cmpxchg [fs:OFF], cl
        BOTH 'cmpxchg-32', 4, cmpxchg [fs:OFF], ecx
        BOTH 'cmpxchg8b', 8, cmpxchg8b [fs:OFF]
        BOTH 'cmovz-16', 2, cmovz ax, [fs:OFF]
        BOTH 'cmovnz-32', 4, cmovnz eax, [fs:OFF]
        BOTH 'setz', 1, setz [fs:OFF]
        BOTH 'setnz', 1, setnz [fs:OFF]
        BOTHS 'xlat', 1, {mov ebx, OFF - 0x44}, {fs xlatb}
        BOTH 'arpl', 2, arpl [fs:OFF], ax
        BOTH 'lar', 2, lar edx, [fs:OFF]
        BOTH 'verw', 2, verw [fs:OFF]
        BOTH 'sldt', 2, sldt [fs:OFF]
        BOTH 'str', 2, str [fs:OFF]
        BOTH 'smsw', 2, smsw [fs:OFF]
        BOTH 'mov-from-sreg', 2, mov [fs:OFF], ds
        BOTH 'sgdt', 6, sgdt [fs:OFF]
        BOTH 'sidt', 6, sidt [fs:OFF]
        BOTH 'o16-sgdt', 6, o16 sgdt [fs:OFF]
        BOTHS 'bound-16', 4, {mov eax, 0x1C00}, {bound ax, [fs:OFF]}
        BOTHS 'push-mem-16', 2, {push word [fs:OFF]}, {pop ax}
        BOTHS 'push-mem-32', 4, {push dword [fs:OFF]}, {pop eax}
        CHECK 'lea-out', lea eax, [fs:0xFFFFF]
        CHECK 'nop-out', nop dword [fs:0x2000]
        CHECK 'prefetch-out', prefetcht0 [fs:0x2000]
        CHECK 'lgdt-out', lgdt [fs:EDGE - 5]
        CHECK 'lidt-out', lidt [fs:EDGE - 5]
        CHECK 'lldt-out', lldt [fs:EDGE - 1]
        CHECK 'ltr-out', ltr [fs:EDGE - 1]
        CHECK 'lmsw-out', lmsw [fs:EDGE - 1]
        CHECK 'mov-to-sreg-out', mov gs, [fs:EDGE - 1]
        CHECK 'les-out', les eax, [fs:EDGE - 5]
        CHECK 'lgs-out-16', o16 lgs ax, [fs:EDGE - 3]
        CHECK 'jmp-mem-out', jmp dword [fs:EDGE - 3]
        CHECK 'call-mem-out', call dword [fs:EDGE - 3]
        CHECK 'jmp-far-mem-out', jmp far [fs:EDGE - 5]
        CHECK 'call-far-mem-out', call far [fs:EDGE - 5]
        CHECKS 'bt-reg-out', {mov ebx, 32 * 4}, {bt dword [fs:EDGE - 16], ebx}
        CHECKS 'bt-reg-in', {mov ebx, 32 * 3 + 31}, {bt dword [fs:EDGE - 16], ebx}
        CHECKS 'bts-reg-negative-in', {mov ebx, -1}, {bts dword [fs:EDGE], ebx}
        CHECKS 'btr-reg-16-out', {mov ebx, 16}, {btr word [fs:EDGE - 2], bx}
        CHECKS 'btc-reg-below', {mov ebx, -32}, {btc dword [fs:0], ebx}
        CHECKS 'pop-mem-out', {push eax}, {pop dword [fs:EDGE - 3]}
        call stack_again
        CHECKS 'pop-mem-in', {push eax}, {pop dword [fs:EDGE - 4]}

; ----- addressing
        CHECK 'form-ebx-in', mov eax, [fs:ebx + 0xFC]
        CHECK 'form-ebx-out', mov eax, [fs:ebx + 0xFD]
        CHECK 'form-esi-scaled-in', mov eax, [fs:ebx + esi * 8 + 0x7C]
        CHECK 'form-esi-scaled-out', mov eax, [fs:ebx + esi * 8 + 0x7D]
        CHECK 'form-index-only-out', mov al, [fs:edi * 4 + 0xF00]
        CHECK 'form-negative', mov al, [fs:esi - 0x11]
        CHECK 'form-negative-in', mov al, [fs:esi - 0x10]
        CHECK 'form-ebp-in', mov eax, [fs:ebp + 0x1FC]
        CHECK 'form-ebp-out', mov eax, [fs:ebp + 0x1FD]
        CHECK 'form-a16-bx-si-in', mov eax, [fs:bx + si + 0xEC]
        CHECK 'form-a16-bx-si-out', mov eax, [fs:bx + si + 0xED]
        CHECK 'form-a16-bp-di-out', mov eax, [fs:bp + di + 0x1BD]
        CHECK 'form-a16-wraps-in', mov eax, [fs:bx + 0xF110]
        CHECK 'form-a16-disp-out', mov ax, [fs:word EDGE - 1]
        CHECK 'form-a32-high', mov al, [fs:0x80000000]
        CHECK 'form-a32-top', mov eax, [fs:0xFFFFFFFE]
        CHECK 'form-crosses-zero', mov eax, [fs:0xFFFFFFFF]

; ----- x87, MMX, SSE
        BOTHS 'fld-32', 4, {fld dword [fs:OFF]}, {fninit}
        BOTHS 'fld-64', 8, {fld qword [fs:OFF]}, {fninit}
        BOTHS 'fld-80', 10, {fld tword [fs:OFF]}, {fninit}
        BOTHS 'fild-16', 2, {fild word [fs:OFF]}, {fninit}
        BOTHS 'fild-64', 8, {fild qword [fs:OFF]}, {fninit}
        BOTHS 'fadd-32', 4, {fadd dword [fs:OFF]}, {fninit}
        BOTHS 'fimul-16', 2, {fimul word [fs:OFF]}, {fninit}
        BOTHS 'fst-32', 4, {fld1}, {fst dword [fs:OFF]}
        BOTHS 'fstp-64', 8, {fld1}, {fstp qword [fs:OFF]}
        BOTHS 'fstp-80', 10, {fld1}, {fstp tword [fs:OFF]}
        BOTHS 'fistp-64', 8, {fld1}, {fistp qword [fs:OFF]}
        BOTHS 'fbstp', 10, {fld1}, {fbstp [fs:OFF]}
        BOTHS 'fbld', 10, {fbld [fs:OFF]}, {fninit}
        BOTH 'fnstcw', 2, fnstcw [fs:OFF]
        BOTHS 'fldcw', 2, {fldcw [fs:OFF]}, {fninit}
        BOTH 'fnstsw', 2, fnstsw [fs:OFF]
        CHECK 'fnstenv-out', fnstenv [fs:EDGE - 27]
        CHECK 'fnstenv-o16-out', o16 fnstenv [fs:EDGE - 13]
        CHECKS 'fldenv-out', {fldenv [fs:EDGE - 27]}, {fninit}
        CHECK 'fnsave-out', fnsave [fs:EDGE - 107]
        CHECKS 'frstor-out', {frstor [fs:EDGE - 107]}, {fninit}
        CHECK 'fxsave-out', fxsave [fs:EDGE - 0x100]
        CHECK 'fxrstor-out', fxrstor [fs:EDGE - 0x100]
        BOTHS 'movd-load', 4, {movd mm0, [fs:OFF]}, {emms}
        BOTHS 'movq-load', 8, {movq mm0, [fs:OFF]}, {emms}
        BOTHS 'movq-store', 8, {movq [fs:OFF], mm0}, {emms}
        BOTHS 'paddb', 8, {paddb mm0, [fs:OFF]}, {emms}
        BOTH 'movss', 4, movss xmm0, [fs:OFF]
        BOTH 'movsd', 8, movsd xmm0, [fs:OFF]
        BOTH 'movups-load', 16, movups xmm0, [fs:OFF]
        BOTH 'movdqu-load', 16, movdqu xmm0, [fs:OFF]
        BOTH 'movlps', 8, movlps xmm0, [fs:OFF]
        BOTH 'ucomiss', 4, ucomiss xmm0, [fs:OFF]
        BOTH 'movss-store', 4, movss [fs:OFF], xmm1
        BOTH 'movups-store', 16, movups [fs:OFF], xmm1
        BOTH 'movhps-store', 8, movhps [fs:OFF], xmm1
        BOTH 'stmxcsr', 4, stmxcsr [fs:OFF]
        CHECK 'ldmxcsr-out', ldmxcsr [fs:EDGE - 3]
        BOTH 'movnti', 4, movnti [fs:OFF], eax

; ----- string instructions: source FS:ESI, target ES:EDI
%macro STRING 4+                        ; name, ESI, EDI, instruction
        CHECKS %1, {mov esi, %2}, {mov edi, %3}, {%4}
%endmacro
%macro STRINGS 5                        ; with an instruction before it
        CHECKS %1, {mov esi, %2}, {mov edi, %3}, {%4}, {%5}
%endmacro
        mov eax, UP
        mov es, eax
        STRING 'lodsb-out', EDGE, 0, fs lodsb
        STRING 'lodsw-in', EDGE - 2, 0, fs lodsw
        STRING 'lodsw-out', EDGE - 1, 0, fs lodsw
        STRING 'lodsd-out', EDGE - 3, 0, fs lodsd
        STRING 'stosb-in', 0, EDGE - 1, stosb
        STRING 'stosb-out', 0, EDGE, stosb
        STRING 'stosw-out', 0, EDGE - 1, stosw
        STRING 'stosd-out', 0, EDGE - 3, stosd
        STRING 'scasb-out', 0, EDGE, scasb
        STRING 'scasd-out', 0, EDGE - 3, scasd
        STRING 'movsb-source-out', EDGE, 0, fs movsb
        STRING 'movsb-target-out', 0, EDGE, fs movsb
        STRING 'movsd-in', 0, EDGE - 4, fs movsd
        STRING 'movsd-target-out', 0, EDGE - 3, fs movsd
        STRING 'cmpsb-source-out', EDGE, 0, fs cmpsb
        STRING 'cmpsw-target-out', 0, EDGE - 1, fs cmpsw
        STRING 'a16-stosb-out', 0, 0x10000 + EDGE, a16 stosb
        STRING 'a16-stosb-in', 0, 0x10000 + EDGE - 1, a16 stosb
        STRING 'rep-stosb-crosses', 0, EDGE - 1, rep stosb
        STRING 'rep-stosd-crosses', 0, EDGE - 6, rep stosd
        STRING 'rep-movsw-crosses', 0, EDGE - 3, fs rep movsw
        STRING 'rep-lodsb-crosses', EDGE - 1, 0, fs rep lodsb
        STRING 'repe-cmpsb-crosses', EDGE - 1, EDGE - 1, fs repe cmpsb
        STRING 'repne-scasd-crosses', 0, EDGE - 4, repne scasd
        STRINGS 'rep-stosb-down', 0, 0, {std}, {rep stosb}
        STRINGS 'rep-none', EDGE, EDGE + 5, {mov ecx, 0}, {rep stosd}
        STRINGS 'insb-out', 0, EDGE, {mov dx, 0x21}, {insb}
        STRINGS 'outsb-out', EDGE, 0, {mov dx, 0x80}, {fs outsb}
        STRINGS 'insd-out', 0, EDGE - 3, {mov dx, 0x80}, {insd}

; ----- expand-down, limit FFFh: valid above it, to FFFFFFFFh or FFFFh
%macro DOWN 1
        CHECK {%1, '-below'}, mov al, [fs:EDGE - 1]
        CHECK {%1, '-zero'}, mov al, [fs:0]
        CHECK {%1, '-first'}, mov al, [fs:EDGE]
        CHECK {%1, '-straddles'}, mov ax, [fs:EDGE - 1]
        CHECK {%1, '-store-straddles'}, mov [fs:EDGE - 3], eax
        CHECK {%1, '-store-first'}, mov [fs:EDGE], eax
        CHECK {%1, '-last-16'}, mov al, [fs:0xFFFF]
        CHECK {%1, '-word-last-16'}, mov ax, [fs:0xFFFE]
        CHECK {%1, '-word-past-16'}, mov ax, [fs:0xFFFF]
        CHECK {%1, '-dword-past-16'}, mov [fs:0xFFFD], eax
        CHECK {%1, '-past-16'}, mov al, [fs:0x10000]
        CHECK {%1, '-inc-below'}, inc dword [fs:EDGE - 4]
%endmacro
        mov eax, DOWN32
        mov fs, eax
        DOWN 'down32'
        mov eax, DOWN16
        mov fs, eax
        DOWN 'down16'
        mov eax, DOWN_PAGES             ; limit field 0 in pages: FFFh
        mov fs, eax
        CHECK 'down-pages-below', mov al, [fs:EDGE - 1]
        CHECK 'down-pages-first', mov al, [fs:EDGE]
        mov eax, DOWN_ALL               ; limit FFFFFFFFh: nothing is valid
        mov fs, eax
        CHECK 'down-all-zero', mov al, [fs:0]
        CHECK 'down-all-middle', mov al, [fs:EDGE]

; ----- other limits
        mov eax, UP_PAGES               ; limit field 0 in pages: FFFh
        mov fs, eax
        BOTH 'pages-load', 4, mov eax, [fs:OFF]
        mov eax, UP_ZERO                ; limit 0
        mov fs, eax
        CHECK 'limit-0-byte', mov al, [fs:0]
        CHECK 'limit-0-word', mov ax, [fs:0]
        CHECK 'limit-0-second', mov al, [fs:1]

; ----- types
%macro TYPES 2
        mov eax, %2
        mov fs, eax
        CHECK {%1, '-load-8'}, mov al, [fs:0]
        CHECK {%1, '-load-32'}, mov eax, [fs:4]
        CHECK {%1, '-store-8'}, mov [fs:0], al
        CHECK {%1, '-store-32'}, mov [fs:4], eax
        CHECK {%1, '-add'}, add [fs:8], eax
        CHECK {%1, '-cmp'}, cmp [fs:8], eax
        CHECK {%1, '-xchg'}, xchg [fs:8], eax
        CHECK {%1, '-bts'}, bts dword [fs:8], 1
        CHECK {%1, '-bt'}, bt dword [fs:8], 1
        CHECK {%1, '-cmpxchg-unequal'}, cmpxchg [fs:8], ecx
        CHECK {%1, '-load-past'}, mov al, [fs:EDGE]
        CHECK {%1, '-store-past'}, mov [fs:EDGE], al
        CHECK {%1, '-lodsb'}, fs lodsb
        CHECK {%1, '-setc'}, setc [fs:0]
        CHECK {%1, '-shl-0'}, shl dword [fs:8], 0
        CHECK {%1, '-fnstcw'}, fnstcw [fs:8]
        CHECK {%1, '-fldcw'}, fldcw [fs:8]
        CHECKS {%1, '-pop'}, {push eax}, {pop dword [fs:0]}
        call stack_again
%endmacro
        TYPES 'read-only', UP_RO
        TYPES 'read-only-down', DOWN_RO
        TYPES 'code-readable', UP_CODE
        TYPES 'null', 0
        TYPES 'null-rpl', 3
        mov eax, UP_RO
        mov es, eax
        CHECK 'read-only-stosb', stosb
        CHECK 'read-only-scasb', scasb
        CHECK 'read-only-movsb', fs movsb
        xor eax, eax
        mov es, eax
        mov gs, eax
        CHECK 'null-es-stosd', stosd
        CHECK 'null-es-scasb', scasb
        CHECK 'null-gs-load', mov eax, [gs:0]
        CHECKS 'null-es-rep-none', {mov ecx, 0}, {rep stosb}
        CHECK 'null-gs-lea', lea eax, [gs:ebx]
        mov eax, DATA32
        mov es, eax
        mov ds, eax
        mov fs, eax

; ----- CS as an operand: readable or not, never written
        CHECK 'cs-load', mov eax, [cs:F(rom)]
        CHECK 'cs-store', mov [cs:AREA], eax
        CHECK 'cs-inc', inc dword [cs:AREA]
%macro XO 2+                            ; as CHECK, the instruction in an execute-only segment
        call mark32
        db 10, %1, 0
        call preset
        mov dword [ss:RESUME], F(%%after)
        jmp CODE_XO:F(%%there)
%%there:
        %2
%%after:
        jmp CODE32:F(%%back)
%%back: call outcome
%endmacro
        XO 'xo-load-8', mov al, [cs:F(rom)]
        XO 'xo-load-32', mov eax, [cs:F(rom)]
        XO 'xo-store', mov [cs:AREA], eax
        XO 'xo-lodsb', cs lodsb
        XO 'xo-cmp', cmp dword [cs:AREA], 1
        XO 'xo-jmp-mem', jmp dword [cs:F(rom)]
        XO 'xo-lea', lea eax, [cs:F(rom)]

; ----- the edge of CS: CODE_LOW is the ROM with the limit CS_LIMIT
        jmp CODE_LOW:(low - rom)
low:
%macro LOW 2+                           ; as CHECK, in CODE_LOW, whose EIP is an offset in the ROM
        call mark32
        db 10, %1, 0
        call preset
        mov dword [ss:RESUME], %%after - rom
        %2
%%after:
        call outcome
%endmacro
%macro LOWS 3
        call mark32
        db 10, %1, 0
        call preset
        mov dword [ss:RESUME], %%after - rom
        %2
        %3
%%after:
        call outcome
%endmacro
        LOW 'cs-limit-load-in', mov eax, [cs:CS_LIMIT - 3]
        LOW 'cs-limit-load-out', mov eax, [cs:CS_LIMIT - 2]
        LOW 'jmp-beyond', jmp 0x10000
        LOW 'jmp-short-to-last', jmp last_byte
        LOW 'jmp-to-two-bytes', jmp crossing
        LOWS 'jmp-register-beyond', {mov eax, CS_LIMIT + 1}, {jmp eax}
        LOWS 'jmp-register-high', {mov eax, 0xFFFFFFF0}, {jmp eax}
        LOWS 'jmp-memory-beyond', {mov dword [AREA], CS_LIMIT + 1}, {jmp [AREA]}
        LOW 'call-beyond', call 0x20000
        LOWS 'call-register-beyond', {mov eax, CS_LIMIT + 5}, {call eax}
        LOW 'jz-beyond-taken', jz near 0x12345
        LOW 'jnz-beyond-not-taken', jnz near 0x12345
        LOW 'jecxz-not', jecxz $ + 2
        LOWS 'ret-beyond', {push dword CS_LIMIT + 1}, {ret}
        call stack_again
        LOWS 'ret-imm-beyond', {push dword 0x7FFFFFFF}, {ret 8}
        call stack_again
        LOW 'falls-off', jmp falls_off
        jmp CODE32:F(done)
done:
        TEST 32, 'end'
        mov al, 0
        jmp finish32

stack_again:                            ; after a POP that faulted
        pop eax
        mov esp, STACK
        jmp eax

        align 8
GDT32
UP              equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x93, 0x4
UP_PAGES        equ $ - gdt
        SEGMENT AREA, 0, 0x93, 0xC
UP_ZERO         equ $ - gdt
        SEGMENT AREA, 0, 0x93, 0x4
UP_RO           equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x91, 0x4
UP_CODE         equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x9B, 0x4
DOWN32          equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x97, 0x4
DOWN16          equ $ - gdt
        SEGMENT AREA, EDGE - 1, 0x97, 0x0
DOWN_RO         equ $ - gdt
        SEGMENT AREA - EDGE, EDGE - 1, 0x95, 0x4
DOWN_PAGES      equ $ - gdt
        SEGMENT AREA, 0, 0x97, 0xC
DOWN_ALL        equ $ - gdt
        SEGMENT AREA, 0xFFFFF, 0x97, 0xC
CODE_XO         equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x99, 0xC
CODE_LOW        equ $ - gdt
        SEGMENT ROM, CS_LIMIT, 0x9B, 0x4
gdt_end:
TABLE_REGISTERS32
        times 0xF000 - 4 - ($ - $$) db 0x90
falls_off:                              ; four one-byte instructions to the limit, then the next is outside
        nop
        nop
crossing:
        nop
last_byte:
        nop                             ; EFFFh: the last byte of CODE_LOW
CS_LIMIT        equ 0xEFFF
        nop
RESET_VECTOR start
