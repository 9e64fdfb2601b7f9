; Encodings that are #UD, operands of SSE that have to be aligned, FBSTP and FXRSTOR in 32-bit protected mode.
; ROM: QEMU -bios, v2e run --firmware. Output as cpu_check32.inc says; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000
SPOT            equ AREA + EDGE - 0x20  ; 32 bytes that `outcome` looks at, at a multiple of 16
BUFFER          equ 0x32000             ; an instruction that is put together
TEMPLATE        equ 0x31000             ; LOCK, 0Fh or not, the opcode, ModRM: what is tried, and its length

; %1 name, %2 and %3 the instruction before and behind its operand: at a multiple of 16, and not
%macro ALIGNED 3
        CHECKS {%1, '-0'}, {pxor xmm0, xmm0}, {%2 [SPOT] %3}
        CHECKS {%1, '-8'}, {pxor xmm0, xmm0}, {%2 [SPOT + 8] %3}
        CHECKS {%1, '-1'}, {pxor xmm0, xmm0}, {%2 [SPOT + 1] %3}
%endmacro

; %1 name, %2 exponent and sign, %3 high and %4 low half of the mantissa: FBSTP, rounding in all four ways
%macro DIGITS 4
  %assign way 0
  %rep 4
        CHECKS {%1, '-', '0' + way}, {mov dword [SPOT + 16], %4}, {mov dword [SPOT + 20], %3}, \
                {mov dword [SPOT + 24], %2}, {mov word [SPOT + 28], 0x37F | way << 10}, {fldcw [SPOT + 28]}, \
                {fld tword [SPOT + 16]}, {fbstp [SPOT]}
    %assign way way + 1
  %endrep
%endmacro

ROM32
CHECK_SERVICES
; Try LOCK before each opcode, ECX (bit 8: behind 0Fh), for which the table says so with each ModRM.reg, otherwise with
; one; the operand in memory, then in EDX.
locks:
        xor ecx, ecx
.opcode:
        bt [skipped + ROM - rom], ecx
        jc .next
        xor ebx, ebx
        bt [groups + ROM - rom], ecx
        jc .reg
        mov ebx, ecx
        and ebx, 7
.reg:   mov al, 0x05                    ; [disp32]
        call locked
        mov al, 0xC2
        call locked
        bt [groups + ROM - rom], ecx
        jnc .next
        inc ebx
        cmp ebx, 8
        jb .reg
.next:  inc ecx
        cmp ecx, 0x200
        jb .opcode
        ret

; LOCK, opcode ECX, ModRM AL with reg EBX
locked: pushad
        mov ah, bl
        shl ah, 3
        or ah, al
        call mark32                     ; which changes EDI
        db 10, 'lock-', 0
        test ch, ch
        jz .short
        mov al, 0x0F
        call hex2_32
.short: mov al, cl
        call hex2_32
        call mark32
        db '-', 0
        mov al, ah
        call hex2_32
        mov edi, BUFFER
        mov al, 0xF0
        stosb
        test ch, ch
        jz .one
        mov al, 0x0F
        stosb
.one:   mov al, cl
        stosb
        mov al, ah
        stosb
        mov eax, SPOT
        stosd
        xor eax, eax                    ; an immediate; ADD [EAX], AL would be done by a shorter instruction
        mov al, 0x90
        mov ecx, 8
        rep stosb
        mov al, 0xC3
        stosb
        call preset
        mov eax, [BUFFER]               ; the rest of registers is as for any check
        mov dword [RESUME], F(.after)
        mov [TEMPLATE], esp
        mov eax, BUFFER
        call eax
.after: mov esp, [TEMPLATE]
        call outcome
        popad
        ret

        align 4
; A bit an opcode: prefixes, and what is followed by another map
%macro BITS_OF 0
  %assign byte 0
  %rep 64
    %assign value 0
    %assign bit 0
    %rep 8
      %assign n byte * 8 + bit
      %if CHOSEN(n)
        %assign value value | 1 << bit
      %endif
      %assign bit bit + 1
    %endrep
        db value
    %assign byte byte + 1
  %endrep
%endmacro
%define CHOSEN(n) (n = 0x0F || n = 0x26 || n = 0x2E || n = 0x36 || n = 0x3E || (n >= 0x64 && n <= 0x67) || n = 0xF0 \
        || n = 0xF2 || n = 0xF3 || n = 0x138 || n = 0x13A)
skipped: BITS_OF
%undef CHOSEN
%define CHOSEN(n) ((n >= 0x80 && n <= 0x83) || n = 0x8F || n = 0xC6 || n = 0xC7 || n = 0xF6 || n = 0xF7 || n = 0xFE \
        || n = 0xFF || n = 0x100 || n = 0x101 || n = 0x1AE || n = 0x1BA || n = 0x1C7)
groups: BITS_OF

PROTECTED_START
        mov eax, 0x600
        mov cr4, eax
        call locks
; ----- groups of one instruction
%assign reg 0
%rep 8
        CHECKS {'pop-', '0' + reg}, {mov ebx, SPOT}, {db 0x8F, 0x03 | reg << 3}, {push eax}
        CHECKS {'pop-register-', '0' + reg}, {db 0x8F, 0xC2 | reg << 3}, {push eax}
        CHECKS {'mov-8-', '0' + reg}, {mov ebx, SPOT}, {db 0xC6, 0x03 | reg << 3, 5}
        CHECKS {'mov-8-register-', '0' + reg}, {db 0xC6, 0xC2 | reg << 3, 5}
        CHECKS {'mov-32-', '0' + reg}, {mov ebx, SPOT}, {db 0xC7, 0x03 | reg << 3, 5, 6, 7, 8}
        CHECKS {'mov-32-register-', '0' + reg}, {db 0xC7, 0xC2 | reg << 3, 5, 6, 7, 8}
  %assign reg reg + 1
%endrep
; ----- alignment, of SSE and SSE2, which Bochs's CPU has
        ALIGNED 'movaps', {movaps xmm0,}, {}
        ALIGNED 'movaps-store', {movaps}, {, xmm0}
        ALIGNED 'movups', {movups xmm0,}, {}
        ALIGNED 'movups-store', {movups}, {, xmm0}
        ALIGNED 'movapd', {movapd xmm0,}, {}
        ALIGNED 'movupd-store', {movupd}, {, xmm0}
        ALIGNED 'movdqa', {movdqa xmm0,}, {}
        ALIGNED 'movdqa-store', {movdqa}, {, xmm0}
        ALIGNED 'movdqu', {movdqu xmm0,}, {}
        ALIGNED 'movdqu-store', {movdqu}, {, xmm0}
        ALIGNED 'movntps', {movntps}, {, xmm0}
        ALIGNED 'movntpd', {movntpd}, {, xmm0}
        ALIGNED 'movntdq', {movntdq}, {, xmm0}
        ALIGNED 'movntq', {movntq}, {, mm0}
        ALIGNED 'movlps', {movlps xmm0,}, {}
        ALIGNED 'movhpd', {movhpd xmm0,}, {}
        ALIGNED 'movss', {movss xmm0,}, {}
        ALIGNED 'movsd', {movsd xmm0,}, {}
        ALIGNED 'movq', {movq xmm0,}, {}
        ALIGNED 'movq-store', {movq}, {, xmm0}
        ALIGNED 'movd', {movd xmm0,}, {}
        ALIGNED 'addps', {addps xmm0,}, {}
        ALIGNED 'addss', {addss xmm0,}, {}
        ALIGNED 'addpd', {addpd xmm0,}, {}
        ALIGNED 'addsd', {addsd xmm0,}, {}
        ALIGNED 'andps', {andps xmm0,}, {}
        ALIGNED 'cmpps', {cmpps xmm0,}, {, 0}
        ALIGNED 'cmpss', {cmpss xmm0,}, {, 0}
        ALIGNED 'comiss', {comiss xmm0,}, {}
        ALIGNED 'shufps', {shufps xmm0,}, {, 0}
        ALIGNED 'unpcklps', {unpcklps xmm0,}, {}
        ALIGNED 'rcpps', {rcpps xmm0,}, {}
        ALIGNED 'sqrtss', {sqrtss xmm0,}, {}
        ALIGNED 'cvtpi2ps', {cvtpi2ps xmm0,}, {}
        ALIGNED 'cvtps2pi', {cvtps2pi mm0,}, {}
        ALIGNED 'cvtpi2pd', {cvtpi2pd xmm0,}, {}
        ALIGNED 'cvtpd2pi', {cvtpd2pi mm0,}, {}
        ALIGNED 'cvtps2pd', {cvtps2pd xmm0,}, {}
        ALIGNED 'cvtpd2ps', {cvtpd2ps xmm0,}, {}
        ALIGNED 'cvtdq2ps', {cvtdq2ps xmm0,}, {}
        ALIGNED 'cvtps2dq', {cvtps2dq xmm0,}, {}
        ALIGNED 'cvtdq2pd', {cvtdq2pd xmm0,}, {}
        ALIGNED 'cvtpd2dq', {cvtpd2dq xmm0,}, {}
        ALIGNED 'paddb', {paddb xmm0,}, {}
        ALIGNED 'paddb-mmx', {paddb mm0,}, {}
        ALIGNED 'punpcklbw', {punpcklbw xmm0,}, {}
        ALIGNED 'pshufd', {pshufd xmm0,}, {, 0}
        ALIGNED 'pshufhw', {pshufhw xmm0,}, {, 0}
        ALIGNED 'pshufw', {pshufw mm0,}, {, 0}
        ALIGNED 'psllw', {psllw xmm0,}, {}
        ALIGNED 'pinsrw', {pinsrw xmm0,}, {, 0}
        CHECKS {'maskmovdqu'}, {pxor xmm0, xmm0}, {mov edi, SPOT + 1}, {maskmovdqu xmm0, xmm0}
        CHECKS {'movaps-ts'}, {mov eax, cr0}, {or eax, 8}, {mov cr0, eax}, {movaps xmm0, [SPOT + 1]}
        clts
        CHECKS {'movaps-em'}, {mov eax, cr0}, {or eax, 4}, {mov cr0, eax}, {movaps xmm0, [SPOT + 1]}
        mov eax, cr0
        and eax, ~4
        mov cr0, eax
        CHECKS {'movaps-without-osfxsr'}, {xor eax, eax}, {mov cr4, eax}, {movaps xmm0, [SPOT + 1]}
        mov eax, 0x600
        mov cr4, eax
; ----- FXRSTOR
        fxsave [TEMPLATE]
%assign bit 15
%rep 17
        CHECKS {'fxrstor-bit-', '0' + bit / 10, '0' + bit % 10}, {mov dword [TEMPLATE + 24], 1 << bit}, \
                {fxrstor [TEMPLATE]}, {stmxcsr [SPOT]}
        CHECKS {'ldmxcsr-bit-', '0' + bit / 10, '0' + bit % 10}, {mov dword [TEMPLATE + 24], 1 << bit}, \
                {ldmxcsr [TEMPLATE + 24]}, {stmxcsr [SPOT]}
  %assign bit bit + 1
%endrep
        CHECKS {'fxrstor-unaligned'}, {fxrstor [TEMPLATE + 8]}
        CHECKS {'fxsave-unaligned'}, {fxsave [TEMPLATE + 8]}
; ----- FBSTP
        DIGITS 'fbstp-0', 0, 0, 0
        DIGITS 'fbstp-minus-0', 0x8000, 0, 0
        DIGITS 'fbstp-1', 0x3FFF, 0x80000000, 0
        DIGITS 'fbstp-half', 0x3FFE, 0x80000000, 0
        DIGITS 'fbstp-minus-half', 0xBFFE, 0x80000000, 0
        DIGITS 'fbstp-minus-quarter', 0xBFFD, 0x80000000, 0
        DIGITS 'fbstp-three-halves', 0x3FFF, 0xC0000000, 0
        DIGITS 'fbstp-minus-five-halves', 0xC000, 0xA0000000, 0
        DIGITS 'fbstp-tiny', 1, 0x80000000, 0
        DIGITS 'fbstp-most', 0x3FFF + 59, 0xDE0B6B3A, 0x763FFFF0
        DIGITS 'fbstp-most-and-half', 0x3FFF + 59, 0xDE0B6B3A, 0x763FFFF8
        DIGITS 'fbstp-too-much', 0x3FFF + 59, 0xDE0B6B3A, 0x76400000
        DIGITS 'fbstp-minus-too-much', 0xBFFF + 59, 0xDE0B6B3A, 0x76400000
        DIGITS 'fbstp-2-60', 0x3FFF + 60, 0x80000000, 0
        DIGITS 'fbstp-2-63', 0x3FFF + 63, 0x80000000, 0
        DIGITS 'fbstp-2-64', 0x3FFF + 64, 0x80000000, 0
        DIGITS 'fbstp-infinity', 0x7FFF, 0x80000000, 0
        DIGITS 'fbstp-minus-infinity', 0xFFFF, 0x80000000, 0
        DIGITS 'fbstp-nan', 0x7FFF, 0xC0000000, 0
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

bits 16
TABLE_REGISTERS32
        align 8
GDT32
gdt_end:
RESET_VECTOR start
