; Mandatory prefixes of SSE in 32-bit protected mode, several of them on one instruction (SDM vol. 2A, 2.1.1; vol. 2D, A.2.1),
; and the predicates of CMPPS and its kind. ROM: QEMU -bios, v2e run --firmware. Output as cpu_check32.inc says, with a
; digest of XMM0 to XMM2 and MM0 to MM2 behind it; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"
%include "cpu_check32.inc"

IDT             equ 0x8000
SPOT            equ AREA + EDGE - 0x20  ; 32 bytes that `outcome` looks at, at a multiple of 16
BUFFER          equ 0x32000             ; an instruction that is put together
VECTORS_OF_SSE  equ 0x31000             ; what XMM0 to XMM2 and MM0 to MM2 begin as, 16 bytes each
FOUND           equ 0x31100             ; what they become
KEPT_STACK      equ 0x31200
LOW_VECTOR      equ 0x9800

ROM32
CHECK_SERVICES
; Try opcode CL behind 0Fh with each of the combinations of prefixes, its operand EBX: ModRM 05h in memory, 0C1h in a register
tried:  mov esi, F(combinations)
.next:  movzx edx, byte [esi]           ; how many prefixes
        test edx, edx
        jz .end
        inc esi
        push edx
        call one
        pop edx
        add esi, edx
        jmp .next
.end:   ret

; EDX prefixes at ESI, opcode CL, ModRM BL
one:    pushad
        call mark32                     ; which changes EDI
        db 10, 0
        mov edi, BUFFER
        push ecx
        mov ecx, edx
.copy:  lodsb
        call hex2_32
        stosb
        loop .copy
        pop ecx
        mov al, 0x0F
        stosb
        mov al, '-'
        out 0xE9, al
        mov al, cl
        call hex2_32
        stosb
        mov al, '-'
        out 0xE9, al
        mov al, bl
        call hex2_32
        stosb
        cmp bl, 5
        jne .short
        mov eax, SPOT
        stosd
.short: mov al, 2                       ; an immediate, or a NOP's prefix
        cmp cl, 0x70
        je .with
        cmp cl, 0xC2
        je .with
        cmp cl, 0xC4
        jb .plain
        cmp cl, 0xC6
        ja .plain
.with:  stosb
.plain: mov al, 0xC3
        stosb
        mov [KEPT_STACK], esp
        call preset
        mov esi, VECTORS_OF_SSE
        movups xmm0, [esi]
        movups xmm1, [esi + 16]
        movups xmm2, [esi + 32]
        movq mm0, [esi + 48]
        movq mm1, [esi + 56]
        movq mm2, [esi + 64]
        mov dword [KEPT_STACK + 4], 0x1F80
        ldmxcsr [KEPT_STACK + 4]
        mov dword [RESUME], F(.after)
        mov esi, 0x10
        mov edi, 0x40
        mov edx, BUFFER
        call edx
.after: mov esp, [KEPT_STACK]
        call outcome
        movups [FOUND], xmm0
        movups [FOUND + 16], xmm1
        movups [FOUND + 32], xmm2
        movq [FOUND + 48], mm0
        movq [FOUND + 56], mm1
        movq [FOUND + 64], mm2
        emms
        mov esi, FOUND
        mov ecx, 18
        xor edx, edx
        call sum
        mov al, '/'
        out 0xE9, al
        mov eax, edx
        call hex8_32
        popad
        ret

; Each behind the number of its prefixes
combinations:
        db 2, 0x66, 0xF3, 2, 0xF3, 0x66, 2, 0x66, 0xF2, 2, 0xF2, 0x66, 2, 0xF2, 0xF3, 2, 0xF3, 0xF2
        db 3, 0x66, 0xF2, 0xF3, 3, 0xF3, 0xF2, 0x66, 4, 0x66, 0x2E, 0xF3, 0x66, 0
; Opcodes: of SSE and SSE2, and others to which 66 is the operand size
opcodes:
        db 0x10, 0x11, 0x13, 0x14, 0x15, 0x17   ; 12h and 16h have forms of SSE3, which Bochs's CPU lacks
%assign op 0x28
%rep 8
        db op
  %assign op op + 1
%endrep
        db 0x40, 0x4F, 0x51, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x5B, 0x5C, 0x5D, 0x5E, 0x5F, 0x60, 0x61, 0x62
        db 0x63, 0x64, 0x6B, 0x6C, 0x6D, 0x6E, 0x6F, 0x70, 0x74, 0x7E, 0x7F, 0xA3, 0xAF, 0xB6, 0xB7, 0xBE, 0xBF, 0xC0, 0xC2
        db 0xC3, 0xC4, 0xC5, 0xC6, 0xD1, 0xD4, 0xD6, 0xD7, 0xDB, 0xE6, 0xE7, 0xEF, 0xF4, 0xFE
opcodes_end:

; CMPPS and its kind with the predicate CL, by each of the forms
compared:
        mov esi, F(forms)
.next:  movzx edx, byte [esi]
        test edx, edx
        jz .end
        inc esi
        pushad
        call mark32
        db 10, 'predicate-', 0
        mov al, cl
        call hex2_32
        mov al, '-'
        out 0xE9, al
        mov edi, BUFFER
        mov ebx, ecx
        mov ecx, edx
.copy:  lodsb
        call hex2_32
        stosb
        loop .copy
        mov al, bl
        stosb
        mov al, 0xC3
        stosb
        mov [KEPT_STACK], esp
        call preset
        movups xmm0, [VECTORS_OF_SSE]
        movups xmm1, [VECTORS_OF_SSE + 16]
        mov ebx, LOW_VECTOR
        xor ecx, ecx
        xor edi, edi
        mov dword [RESUME], F(.after)
        mov edx, BUFFER
        call edx
.after: mov esp, [KEPT_STACK]
        movups [SPOT], xmm0
        call outcome
        popad
        add esi, edx
        jmp .next
.end:   ret

; Each behind the number of its bytes: of registers, of memory at LOW_VECTOR, where EBX points to, ECX and EDI being 0
%macro FORM 1+
        db %%end - %%begin
%%begin: db %1
%%end:
%endmacro
forms:  FORM 0x0F, 0xC2, 0xC1
        FORM 0x66, 0x0F, 0xC2, 0xC1
        FORM 0xF3, 0x0F, 0xC2, 0xC1
        FORM 0xF2, 0x0F, 0xC2, 0xC1
        FORM 0x0F, 0xC2, 0x03
        FORM 0x66, 0x0F, 0xC2, 0x43, 0
        FORM 0xF3, 0x0F, 0xC2, 0x83, 0, 0, 0, 0
        FORM 0xF2, 0x3E, 0x0F, 0xC2, 0x05, LOW_VECTOR & 0xFF, LOW_VECTOR >> 8, 0, 0
        FORM 0x0F, 0xC2, 0x04, 0x0B                     ; [ebx + ecx]
        FORM 0x0F, 0xC2, 0x44, 0x8B, 0
        FORM 0x0F, 0xC2, 0x84, 0x8B, 0, 0, 0, 0
        FORM 0x0F, 0xC2, 0x04, 0x8D, LOW_VECTOR & 0xFF, LOW_VECTOR >> 8, 0, 0 ; [ecx * 4 + disp32]
        FORM 0x67, 0x0F, 0xC2, 0x07                     ; [bx]
        FORM 0x67, 0x0F, 0xC2, 0x47, 0
        FORM 0x67, 0x66, 0x0F, 0xC2, 0x87, 0, 0
        FORM 0x66, 0x67, 0x0F, 0xC2, 0x06, LOW_VECTOR & 0xFF, LOW_VECTOR >> 8
        FORM 0x67, 0x0F, 0xC2, 0x01                     ; [bx + di]
        db 0

PROTECTED_START
        mov eax, 0x600
        mov cr4, eax
        mov edi, VECTORS_OF_SSE
        mov eax, 0x3F800000
        mov ecx, 18
.fill:  mov [edi], eax
        add edi, 4
        add eax, 0x00331122
        loop .fill
        mov ecx, opcodes_end - opcodes
        mov esi, F(opcodes)
.opcode:
        push ecx
        push esi
        movzx ecx, byte [esi]
        mov bl, 0xC1
        call tried
        mov bl, 0x05
        call tried
        pop esi
        pop ecx
        inc esi
        dec ecx
        jnz .opcode
        mov esi, VECTORS_OF_SSE
        mov edi, LOW_VECTOR
        mov ecx, 4
        rep movsd
        mov dword [LOW_VECTOR + 4], 0x7FC00000 ; unordered, less, greater
        mov dword [LOW_VECTOR + 8], 0
        mov dword [LOW_VECTOR + 12], 0x7F000000
        xor ecx, ecx
.predicate:
        call compared
        inc ecx
        cmp ecx, 18
        jb .predicate
        add ecx, 12
        cmp ecx, 0x100
        jb .predicate
        mov ecx, 0xFF
        call compared
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
