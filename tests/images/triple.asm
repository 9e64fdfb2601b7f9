; A triple fault in 32-bit protected mode: an IDT without entries, then INT3. Its #GP finds no gate, nor does #DF.
; ROM: v2e run --firmware triple.bin (status 4 with the chain of faults); QEMU -bios with -no-reboot ends.
bits 16
org 0
rom:
start:
        cli
        o32 lgdt [cs:gdtr]
        o32 lidt [cs:idtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:0xF0000 + protected
bits 32
protected:
        mov eax, 16
        mov ss, eax
        mov esp, 0x7000
int_3:  int3
        hlt
        align 8
gdt:    dq 0
        dq 0x00CF9B000000FFFF
        dq 0x00CF93000000FFFF
gdtr:   dw 23
        dd 0xF0000 + gdt
idtr:   dw 0
        dd 0
        times 0xFFF0 - ($ - $$) db 0xF4
bits 16
        jmp 0xF000:start
        times 0x10000 - ($ - $$) db 0
