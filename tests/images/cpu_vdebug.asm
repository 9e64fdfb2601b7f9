; Debug exceptions in V86 mode with VME, a line a check: single steps over what IOPL and the redirection bitmap have to do with,
; data and I/O breakpoints, one on execution with RF, in and between V86 and its monitor (SDM vol. 3B, 17.3, 20.2 and 20.3).
; ROM: QEMU -bios, v2e run --firmware. A check prints its name, the frame of each exception, of #GP its code and EIP, and =DR6. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
RING0_STACK     equ 0x6800
V86_CODE        equ 0x20000
HERE            equ 0x30000             ; DS, ES and SS
SPOT            equ 0x30400
PORT            equ 0x84                ; the TSS allows it
DENIED          equ 0x70
TOP             equ 0x800
VIF             equ 1 << 19

; %1 name, %2 EFLAGS, %3 DR0, %4 DR7, then code; it ends with UD2
%macro V86 5+
        call mark32
        db 10, %1, 0
        call preset
        mov esi, F(%%code)
        mov edi, V86_CODE
        mov ecx, %%end - %%code
        rep movsb
        mov dword [V86_AT], F(%%next)
        mov eax, %3
        mov dr0, eax
        push dword 0
        push dword 0
        push dword HERE >> 4
        push dword HERE >> 4
        push dword HERE >> 4
        push dword TOP
        push dword 0x20002 | (%2)
        push dword V86_CODE >> 4
        push dword 0
        mov eax, %4
        mov dr7, eax
        mov eax, 0x11223344
        mov ebx, 0x400
        mov edx, PORT
        iretd
bits 16
%%code: %5
        ud2
%%end:
bits 32
%%next: call outcome
%endmacro
V86_AT          equ 0x610               ; dd: where the last UD2 leads

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x200, RING0_STACK, 0x88
        mov byte [TSS + 0x68 + 0x31 / 8], 0     ; the redirection bitmap: all redirected
        mov byte [TSS + 0x68 + 0x21 / 8], 2     ; but 21h
        mov byte [TSS + 0x88 + DENIED / 8], 1
        mov byte [TSS + 0x88 + 0x20], 0xFF
        mov eax, TSS_SEL
        ltr ax
        mov eax, cr4
        or eax, 9                       ; VME, DE
        mov cr4, eax
        mov dword [IDT + 6 * 8], ((leave - rom) & 0xFFFF) | CODE32 << 16
        mov dword [IDT + 6 * 8 + 4], ROM | 0x8E00
        mov dword [IDT + 13 * 8], ((refused - rom) & 0xFFFF) | CODE32 << 16
        mov dword [IDT + 13 * 8 + 4], ROM | 0x8E00
        mov word [IDT + 0x21 * 8 + 4], 0xEE00
        mov byte [IDT + 3 * 8 + 5], 0xEE
        mov dword [0x31 * 4], (V86_CODE >> 4) << 16 | 0x100
        mov dword [V86_CODE + 0x100], 0xCF90CF90        ; NOP, IRET
%assign iopl 0
%rep 2
  %define I '0' + (iopl & 3)
  %assign flags iopl << 12
        V86 {'step-nop-', I}, flags | 0x100, 0, 0, {nop}
        V86 {'step-cli-', I}, flags | 0x100, 0, 0, cli
        V86 {'step-sti-', I}, flags | 0x100, 0, 0, sti
        V86 {'step-pushf-', I}, flags | 0x100, 0, 0, pushf
        V86 {'step-popf-', I}, flags | 0x100, 0, 0, {db 0x6A, 2, 0x9D, 0x90}
        V86 {'step-popf-tf-', I}, flags | 0x100, 0, 0, {db 0x68, 2, 1, 0x9D, 0x90}
        V86 {'popf-tf-', I}, flags, 0, 0, {db 0x68, 2, 1, 0x9D, 0x90, 0x90}
        V86 {'step-int-redirected-', I}, flags | 0x100, 0, 0, {int 0x31}
        V86 {'step-int-', I}, flags | 0x100, 0, 0, {int 0x21}
        V86 {'step-int3-', I}, flags | 0x100, 0, 0, int3
        V86 {'step-mov-ss-', I}, flags | 0x100, 0, 0, {db 0x8C, 0xD0, 0x8E, 0xD0, 0x90, 0x90}
        V86 {'step-iret-', I}, flags | 0x100, 0, 0, {db 0x68, 2, 1, 0x0E, 0x68, 8, 0, 0xCF, 0x90}
        V86 {'step-hlt-', I}, flags | 0x100, 0, 0, {db 0x0F, 0x0B}
        V86 {'write-', I}, flags, SPOT, 1 | 1 << 16, {mov [bx], ax}
        V86 {'write-below-', I}, flags, SPOT, 1 | 1 << 16, {mov [bx - 2], ax}
        V86 {'read-', I}, flags, SPOT, 1 | 3 << 16 | 1 << 18, {mov cx, [bx]}
        V86 {'push-', I}, flags, HERE + TOP - 2, 1 | 1 << 16, {push ax}
        V86 {'int-frame-', I}, flags, HERE + TOP - 2, 1 | 1 << 16, {int 0x31}
        V86 {'int-table-', I}, flags, 0x31 * 4, 1 | 3 << 16, {int 0x31}
        V86 {'monitor-frame-', I}, flags, RING0_STACK - 4, 1 | 1 << 16, {nop}
        V86 {'in-', I}, flags, PORT, 1 | 2 << 16, {in al, dx}
        V86 {'out-word-', I}, flags, PORT + 1, 1 | 2 << 16, {out dx, ax}
        V86 {'outsb-', I}, flags, PORT, 1 | 2 << 16, {mov si, bx}
        V86 {'mov-ss-watched-', I}, flags, SPOT, 1 | 3 << 16, {db 0x8C, 0x17, 0x8E, 0x17, 0x90, 0x90}
        V86 {'execution-', I}, flags | 0x10000, V86_CODE, 1, {nop}
        V86 {'step-rep-', I}, flags | 0x100, 0, 0, {db 0xB9, 2, 0, 0xF3, 0xAA, 0x90}
  %assign iopl iopl + 3
%endrep
        TEST 32, 'end'
        mov al, 0
        jmp finish32

; #GP: print its code and EIP; the check is over
refused:
        mov eax, DATA32
        mov ds, eax
        call mark32
        db ' GP:', 0
        mov eax, [esp]
        call hex4_32
        mov al, ':'
        out 0xE9, al
        mov eax, [esp + 4]
        call hex8_32
; #UD: it is over as well
leave:  mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov esp, STACK
        xor eax, eax
        mov dr7, eax
        jmp [V86_AT]

preset:
        cld
        mov edi, HERE + TOP - 0x40
        mov ecx, 0x10
        mov eax, 0x01020304
        rep stosd
        mov dword [SPOT], HERE >> 4
        mov eax, 0xFFFF0FF0
        mov dr6, eax
        ret
outcome:
        call mark32
        db ' =', 0
        mov eax, dr6
        jmp hex8_32
TABLE_REGISTERS32
        align 8
GDT32
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0xFF, 0x89, 0
gdt_end:
RESET_VECTOR start
