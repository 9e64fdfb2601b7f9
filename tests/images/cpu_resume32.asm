; INT n, INT3 and ICEBP that begin with RF set, in 32-bit code: EFLAGS in the frame, in which RF is 0, and that an execution
; breakpoint behind them is met (SDM vol. 3B, 17.3.1.1). ROM: QEMU -bios, v2e run --firmware.
; A check prints its name and EFLAGS of each frame, with D of #DB. Ends with debug exit 0.
%include "guest.inc"
org 0
%define F(x) (ROM + (x) - rom)
rom:
GUEST_SERVICES 32
bits 16
start:  cli
        lgdt [cs:gdtr - rom]
        lidt [cs:idtr - rom]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:F(pm)
gdtr:   dw 0x17
        dd F(gdt)
idtr:   dw 0x7FF
        dd 0x8000
        align 8
gdt:    dq 0
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
bits 32
pm:     mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov esp, 0x7000
        mov ecx, 256
        mov edi, 0x8000
.g:     mov word [edi], F(handler) & 0xFFFF
        mov word [edi+2], 8
        mov word [edi+4], 0x8E00
        mov word [edi+6], F(handler) >> 16
        add edi, 8
        loop .g
        mov word [0x8000+8], F(debug) & 0xFFFF
        mov eax, F(behind)
        mov dr0, eax
        mov eax, 0x402
        mov dr7, eax
        TEST 32, 'int'
        pushfd
        or dword [esp], 0x10000
        push dword 8
        push dword F(first)
        iretd
first:  int 0x40
behind: nop
        TEST 32, 'int3'
        mov eax, F(behind3)
        mov dr0, eax
        mov eax, 0x402
        mov dr7, eax
        pushfd
        or dword [esp], 0x10000
        push dword 8
        push dword F(first3)
        iretd
first3: int3
behind3: nop
        TEST 32, 'icebp'
        xor eax, eax
        mov dr7, eax
        pushfd
        or dword [esp], 0x10000
        push dword 8
        push dword F(firstf)
        iretd
firstf: db 0xF1
        nop
        TEST 32, 'end'
        mov al, 0
        jmp finish32
handler:
        push eax
        mov al, ' '
        out 0xE9, al
        mov eax, [esp+12]
        call hex8_32
        pop eax
        iretd
debug:  push eax
        mov al, ' '
        out 0xE9, al
        mov al, 'D'
        out 0xE9, al
        mov eax, [esp+12]
        call hex8_32
        xor eax, eax
        mov dr7, eax
        pop eax
        iretd
RESET_VECTOR start
