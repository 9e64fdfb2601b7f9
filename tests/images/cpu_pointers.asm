; The x87's environment in memory, by FNSTENV, FNSAVE and FXSAVE, and the way back, in 32-bit protected mode and in V86 mode:
; control, status and tag word, and the pointers to the last instruction and its operand in all four forms (SDM vol. 1,
; 8.1.8 to 8.1.10). ROM: QEMU -bios, v2e run --firmware. A check prints its name, the frame of an exception, and what is in
; the image. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0x9000
IMAGE           equ 0x5000      ; 512 bytes
NUMBER          equ 0x5400      ; operands
CONTROL         equ 0x5480
BASED_AT        equ 0x3000      ; where BASED begins

; %1 name, %2 bytes of the image that are shown, %3 bits of FOP that are, then the instructions, in braces
%macro SHOWS 4-*
        call mark32
        db 10, %1, 0
        call preset
        mov dword [RESUME], F(%%after)
        mov dword [FOP_MASK], %3
        push dword %2
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
%%after:
        mov dword [RESUME], 0
        pop ecx
        call shown
%endmacro
FOP_MASK        equ 0x5490      ; dw at 6 of FXSAVE's image, or at the form's place: see `shown`
FOP_AT          equ 0x5494      ; its offset in the image; 0: there is none
; %1 name, %2 bytes, %3 FOP's bits, then instructions of 16 bits in V86 mode with DS = 0
%macro VIRTUAL 4-*
        call mark32
        db 10, %1, 0
        call preset
        mov dword [GO_TO], F(%%after)
        mov dword [FOP_MASK], %3
        mov dword [COUNT], %2
  %rep 5                        ; GS, FS, DS, ES, SS
        push dword 0
  %endrep
        push dword 0x2000
        push dword 0x23002
        push dword ROM >> 4
        push dword %%virtual
        iretd
        bits 16
%%virtual:
  %rotate 3
  %rep %0 - 3
        %1
    %rotate 1
  %endrep
        ud2
        bits 32
%%after:
        mov ecx, [COUNT]
        call shown
%endmacro
COUNT           equ 0x5498

ROM32
preset: mov edi, IMAGE
        mov ecx, 128
        mov eax, 0xA5A5A5A5
        cld
        rep stosd
        mov dword [NUMBER], 0x40490FDB
        mov dword [NUMBER + 4], 0
        mov dword [NUMBER + 8], 0
        mov dword [NUMBER + 12], 0x7F800001
        mov dword [CONTROL], 0x037F0340
        mov dword [FOP_AT], 0
        fninit
        mov ebx, NUMBER
        mov ecx, 1
        ret
; Show ECX bytes of the image, a double-word at a time; of the word at FOP_AT the bits of FOP_MASK, of those 11 it has
shown:  mov esi, IMAGE
        mov edi, [FOP_AT]
        test edi, edi
        jz .all
        mov eax, [FOP_MASK]
        or eax, 0xFFFFF800
        and [esi + edi], ax
.all:   shr ecx, 2
.next:  mov al, ' '
        out 0xE9, al
        lodsd
        call hex8_32
        loop .next
        ret

PROTECTED_START
        FRESH_TSS TSS, 0x100, STACK, 0x68
        mov eax, TSSSEL
        ltr ax
        mov eax, 0x600
        mov cr4, eax
        mov eax, cr0
        or eax, 0x20            ; NE
        mov cr0, eax
        mov eax, BASED
        mov fs, eax
; ----- protected mode, 32 bits: FOP of what is not masked alone
%define FORM_32 {mov dword [FOP_AT], 18}
%define FORM_16 {nop}
%define FORM_FX {mov dword [FOP_AT], 6}
        SHOWS 'fninit', 28, 0, FORM_32, {fnstenv [IMAGE]}
        SHOWS 'fld', 28, 0, FORM_32, {fld dword [NUMBER]}, {fnstenv [IMAGE]}
        SHOWS 'fld-ebx', 28, 0, FORM_32, {fld dword [ebx + ecx * 4 - 4]}, {fnstenv [IMAGE]}
        SHOWS 'fld-fs', 28, 0, FORM_32, {fld dword [fs:NUMBER - BASED_AT]}, {fnstenv [IMAGE]}
        SHOWS 'fld1', 28, 0, FORM_32, {fld dword [NUMBER]}, {fld1}, {fnstenv [IMAGE]}
        SHOWS 'fadd-registers', 28, 0, FORM_32, {fld dword [NUMBER]}, {fld1}, {fadd st1}, {fnstenv [IMAGE]}
        SHOWS 'fst', 28, 0, FORM_32, {fld dword [NUMBER]}, {fst qword [NUMBER + 16]}, {fnstenv [IMAGE]}
        SHOWS 'fxch', 28, 0, FORM_32, {fld1}, {fldz}, {fxch}, {fnstenv [IMAGE]}
        SHOWS 'fldcw', 28, 0, FORM_32, {fld dword [NUMBER]}, {fldcw [CONTROL + 2]}, {fnstenv [IMAGE]}
        SHOWS 'fnstsw', 28, 0, FORM_32, {fld dword [NUMBER]}, {fnstsw ax}, {fnstenv [IMAGE]}
        SHOWS 'fnclex', 28, 0, FORM_32, {fld dword [NUMBER]}, {fnclex}, {fnstenv [IMAGE]}
        SHOWS 'fwait', 28, 0, FORM_32, {fld dword [NUMBER]}, {fwait}, {fnstenv [IMAGE]}
        SHOWS 'ffree', 28, 0, FORM_32, {fld dword [NUMBER]}, {ffree st0}, {fnstenv [IMAGE]}
        SHOWS 'fincstp', 28, 0, FORM_32, {fld dword [NUMBER]}, {fincstp}, {fnstenv [IMAGE]}
        SHOWS 'fnstsw-memory', 28, 0, FORM_32, {fld dword [NUMBER]}, {fnstsw [NUMBER + 16]}, {fnstenv [IMAGE]}
        SHOWS 'fnstcw', 28, 0, FORM_32, {fld dword [NUMBER]}, {fnstcw [NUMBER + 16]}, {fnstenv [IMAGE]}
        SHOWS 'mmx', 28, 0, FORM_32, {fld dword [NUMBER]}, {paddb mm0, mm1}, {fnstenv [IMAGE]}
        SHOWS 'fld-16', 16, 0, FORM_16, {fld dword [NUMBER]}, {o16 fnstenv [IMAGE]}
        SHOWS 'fnsave', 108, 0, FORM_32, {fld dword [NUMBER]}, {fld1}, {fnsave [IMAGE]}
        SHOWS 'fnsave-16', 96, 0, FORM_16, {fld dword [NUMBER]}, {fld1}, {o16 fnsave [IMAGE]}
        SHOWS 'fnsave-then', 28, 0x7FF, FORM_32, {fld dword [NUMBER]}, {fnsave [IMAGE]}, {fnstenv [IMAGE]}
        SHOWS 'unmasked', 28, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, {fnstenv [IMAGE]}
        SHOWS 'unmasked-fs', 28, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, \
                {fdiv dword [fs:NUMBER + 4 - BASED_AT]}, {fnstenv [IMAGE]}
        SHOWS 'unmasked-registers', 28, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, {fldz}, {fdivp}, {fnstenv [IMAGE]}
        SHOWS 'unmasked-sqrt', 28, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, {fchs}, {fsqrt}, {fnstenv [IMAGE]}
        SHOWS 'unmasked-mf', 28, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, {fwait}
        SHOWS 'fnsave-unmasked', 108, 0x7FF, FORM_32, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, {fnsave [IMAGE]}
        SHOWS 'unmasked-16', 16, 0, FORM_16, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, {o16 fnstenv [IMAGE]}
; ----- the way back
%macro FILLED 1-*
        mov dword [IMAGE], 0xFFFF037F
  %assign at 4
  %rep %0
        mov dword [IMAGE + at], %1
    %assign at at + 4
    %rotate 1
  %endrep
%endmacro
        SHOWS 'fldenv', 28, 0x7FF, FORM_32, {FILLED 0xFFFF3841, 0xFFFF1234, 0x89ABCDEF, 0xF7654321, 0xFEDCBA98, 0xFFFF7654}, \
                {fldenv [IMAGE]}, {fnstenv [IMAGE]}
        SHOWS 'fldenv-16', 16, 0, FORM_16, {FILLED 0x12343841, 0x89ABCDEF, 0xF7654321, 0xFEDCBA98}, {o16 fldenv [IMAGE]}, \
                {o16 fnstenv [IMAGE]}
        SHOWS 'fldenv-16-32', 28, 0x7FF, FORM_32, {mov dword [IMAGE], 0x3841037F}, {mov dword [IMAGE + 4], 0x89AB1234}, \
                {mov dword [IMAGE + 8], 0x4321CDEF}, {mov dword [IMAGE + 12], 0x00007654}, {o16 fldenv [IMAGE]}, \
                {fnstenv [IMAGE]}
        SHOWS 'frstor', 28, 0x7FF, FORM_32, {FILLED 0xFFFF3841, 0xFFFF1234, 0x89ABCDEF, 0x07654321, 0xFEDCBA98, 0xFFFF7654}, \
                {frstor [IMAGE]}, {fnstenv [IMAGE]}
        SHOWS 'frstor-registers', 108, 0, FORM_32, {fldpi}, {fldl2e}, {fldlg2}, {fnsave [IMAGE]}, {frstor [IMAGE]}, {fnsave [IMAGE]}
; ----- FXSAVE
        SHOWS 'fxsave', 32, 0, FORM_FX, {fld dword [NUMBER]}, {fld1}, {fxsave [IMAGE]}
        SHOWS 'fxsave-registers', 24, 0, FORM_FX, {fld dword [NUMBER]}, {fld1}, {fadd st1}, {fxsave [IMAGE]}
        SHOWS 'fxsave-fs', 24, 0, FORM_FX, {fld dword [fs:NUMBER - BASED_AT]}, {fxsave [IMAGE]}
        SHOWS 'fxsave-unmasked', 24, 0x7FF, FORM_FX, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, {fxsave [IMAGE]}
        SHOWS 'fxsave-fninit', 24, 0x7FF, FORM_FX, {fld dword [NUMBER]}, {fninit}, {fxsave [IMAGE]}
        SHOWS 'fxrstor', 28, 0x7FF, FORM_32, {fxsave [IMAGE]}, {mov dword [IMAGE + 4], 0x07650000}, \
                {mov dword [IMAGE + 8], 0x89ABCDEF}, {mov dword [IMAGE + 12], 0x4321}, {mov dword [IMAGE + 16], 0xFEDCBA98}, \
                {mov dword [IMAGE + 20], 0x7654}, {fxrstor [IMAGE]}, {fnstenv [IMAGE]}
        SHOWS 'fxrstor-fxsave', 24, 0x7FF, FORM_FX, {fxsave [IMAGE]}, {mov dword [IMAGE + 4], 0x07650000}, \
                {mov dword [IMAGE + 8], 0x89ABCDEF}, {mov dword [IMAGE + 12], 0x4321}, {mov dword [IMAGE + 16], 0xFEDCBA98}, \
                {mov dword [IMAGE + 20], 0x7654}, {fxrstor [IMAGE]}, {mov dword [IMAGE + 4], 0}, {mov dword [IMAGE + 8], 0}, \
                {mov dword [IMAGE + 16], 0}, {fxsave [IMAGE]}
; ----- MMX registers, 80 bits of each
        SHOWS 'mmx-paddb', 108, 0, FORM_32, {fldz}, {paddb mm7, mm6}, {fnsave [IMAGE]}
        SHOWS 'mmx-load', 108, 0, FORM_32, {movq mm3, [NUMBER]}, {fnsave [IMAGE]}
        SHOWS 'mmx-store', 108, 0, FORM_32, {fldpi}, {movq [NUMBER + 16], mm7}, {fnsave [IMAGE]}
        SHOWS 'mmx-movd', 108, 0, FORM_32, {movd mm2, ebx}, {movd ecx, mm5}, {fnsave [IMAGE]}
        SHOWS 'mmx-shift', 108, 0, FORM_32, {movd mm2, ebx}, {psllq mm1, 3}, {fnsave [IMAGE]}
        SHOWS 'mmx-copy', 108, 0, FORM_32, {movd mm2, ebx}, {movq mm4, mm2}, {db 0x0F, 0x7F, 0xD5}, {fnsave [IMAGE]}
        SHOWS 'mmx-words', 108, 0, FORM_32, {pinsrw mm1, ebx, 2}, {pshufw mm6, mm1, 0}, {pextrw eax, mm0, 1}, \
                {pmovmskb eax, mm5}, {fnsave [IMAGE]}
        SHOWS 'mmx-conversions', 108, 0, FORM_32, {cvtps2pi mm1, xmm0}, {cvttpd2pi mm2, xmm0}, {cvtpi2ps xmm1, mm3}, \
                {movdq2q mm4, xmm0}, {movq2dq xmm0, mm5}, {fnsave [IMAGE]}
        SHOWS 'mmx-others', 108, 0, FORM_32, {mov edi, NUMBER + 16}, {maskmovq mm0, mm1}, {movntq [NUMBER + 16], mm2}, \
                {fnsave [IMAGE]}
        SHOWS 'mmx-fxsave', 32, 0, FORM_FX, {fldz}, {paddb mm7, [NUMBER]}, {emms}, {fxsave [IMAGE]}
; ----- V86 mode
        VIRTUAL 'v86-fld', 28, 0, {mov dword [FOP_AT], 16}, {fld dword [NUMBER]}, {o32 fnstenv [IMAGE]}
        VIRTUAL 'v86-fld-16', 16, 0, {mov dword [FOP_AT], 8}, {fld dword [NUMBER]}, {o16 fnstenv [IMAGE]}
        VIRTUAL 'v86-cs', 28, 0, {mov dword [FOP_AT], 16}, {fld dword [cs:16]}, {o32 fnstenv [IMAGE]}
        VIRTUAL 'v86-cs-16', 16, 0, {mov dword [FOP_AT], 8}, {fld dword [cs:16]}, {o16 fnstenv [IMAGE]}
        VIRTUAL 'v86-fninit', 28, 0x7FF, {mov dword [FOP_AT], 16}, {fninit}, {o32 fnstenv [IMAGE]}
        VIRTUAL 'v86-unmasked', 28, 0x7FF, {mov dword [FOP_AT], 16}, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, \
                {o32 fnstenv [IMAGE]}
        VIRTUAL 'v86-unmasked-16', 16, 0x7FF, {mov dword [FOP_AT], 8}, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, \
                {o16 fnstenv [IMAGE]}
        VIRTUAL 'v86-fnsave', 108, 0x7FF, {mov dword [FOP_AT], 16}, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, \
                {o32 fnsave [IMAGE]}
        VIRTUAL 'v86-fnsave-16', 96, 0x7FF, {mov dword [FOP_AT], 8}, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, \
                {o16 fnsave [IMAGE]}
        VIRTUAL 'v86-fxsave', 24, 0x7FF, {mov dword [FOP_AT], 6}, {fldcw [CONTROL]}, {fld1}, {fdiv dword [NUMBER + 4]}, \
                {fxsave [IMAGE]}
        VIRTUAL 'v86-fldenv', 28, 0x7FF, {mov dword [FOP_AT], 16}, {mov dword [IMAGE], 0x037F}, {mov dword [IMAGE + 4], 0}, \
                {mov dword [IMAGE + 8], 0xFFFF}, {mov dword [IMAGE + 12], 0x89ABCDEF}, {mov dword [IMAGE + 16], 0xF7654321}, \
                {mov dword [IMAGE + 20], 0xFEDCBA98}, {mov dword [IMAGE + 24], 0xF6543210}, {o32 fldenv [IMAGE]}, \
                {o32 fnstenv [IMAGE]}
        VIRTUAL 'v86-fldenv-16', 16, 0x7FF, {mov dword [FOP_AT], 8}, {mov dword [IMAGE], 0x037F}, {mov dword [IMAGE + 4], 0xCDEFFFFF}, \
                {mov dword [IMAGE + 8], 0xBA984321}, {mov dword [IMAGE + 12], 0x76543210}, {o16 fldenv [IMAGE]}, \
                {o16 fnstenv [IMAGE]}
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

bits 16
TABLE_REGISTERS32
        align 8
GDT32
GDT32_USER
TSSSEL          equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
BASED           equ $ - gdt
        SEGMENT BASED_AT, 0xFFFFF, 0x93, 0xC
gdt_end:
RESET_VECTOR start
