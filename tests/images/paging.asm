; Page tables with every sort of entry, and registers that are seen in every column of `info registers`; then it loops
; with interrupts off. A ROM; -DKIND=0: no paging, 1: 32-bit, 2: PAE, 3: four levels.
bits 16
org 0
ROM equ 0xF0000
start:  cli
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 8:ROM+flat
gdt:    dq 0
        dq 0x00CF9B000000FFFF
        dq 0x00CF93000000FFFF
        dq 0x00AF9B000000FFFF
gdtr:   dw $-gdt-1
        dd ROM+gdt
bits 32
flat:   mov ax,16
        mov ds,ax
        mov es,ax
        mov ss,ax
        mov esp,0x7000
        cld
        xor eax,eax
        mov edi,0x10000
        mov ecx,0x8000
        rep stosd
%if KIND = 1
        mov dword [0x10000],0x11067          ; user rw table
        mov dword [0x10004],0x00400083 | 0x40 ; 4M
        mov dword [0x10008],0x00800081
        mov dword [0x10C00],0x11003
        mov dword [0x10FFC],0x11001
        mov edi,0x11000
        mov eax,0x7
        mov ecx,1024
.l:     mov [edi],eax
        add edi,4
        add eax,0x1000
        loop .l
        mov dword [0x11010],0x4005
        mov dword [0x11014],0x5003
        mov dword [0x11018],0
        mov dword [0x1101C],0x7103
        mov eax,cr4
        or eax,0x90
        mov cr4,eax
%elif KIND = 2
        mov dword [0x10000],0x11001
        mov dword [0x10018],0x12001
        mov dword [0x11000],0x13067
        mov dword [0x11008],0x002000E3
        mov dword [0x11010],0x00400085
        mov dword [0x12ff8],0x13003
        mov edi,0x13000
        mov eax,0x7
        mov ecx,512
.l:     mov [edi],eax
        add edi,8
        add eax,0x1000
        loop .l
        mov dword [0x13010],0x4005
        mov dword [0x13018],0x5103
        mov dword [0x13020],0
        mov dword [0x13034],0x80000000
        mov eax,cr4
        or eax,0xA0
        mov cr4,eax
        mov ecx,0xC0000080
        rdmsr
        or eax,0x800
        wrmsr
%elif KIND = 3
        mov dword [0x10000],0x11067
        mov dword [0x10800],0x11003
        mov dword [0x10FF8],0x11001
        mov dword [0x11000],0x12067
        mov dword [0x11010],0x12003
        mov dword [0x12000],0x13067
        mov dword [0x12008],0x002000E3
        mov dword [0x12010],0x00400085
        mov edi,0x13000
        mov eax,0x7
        mov ecx,512
.l:     mov [edi],eax
        add edi,8
        add eax,0x1000
        loop .l
        mov dword [0x13010],0x4005
        mov dword [0x13018],0x5103
        mov dword [0x13020],0
        mov dword [0x13034],0x80000000
        mov eax,cr4
        or eax,0xA0
        mov cr4,eax
        mov ecx,0xC0000080
        rdmsr
        or eax,0x900
        wrmsr
%endif
        mov eax,0x10000
        mov cr3,eax
        mov eax,cr0
%if KIND > 0
        or eax,0x80010000
%endif
        mov cr0,eax
        mov eax,0x11111111
        mov ebx,0x22222222
        mov edx,0x44444444
        mov ebp,0x33333333
        fninit
        fld1
        fldpi
%if KIND = 3
        jmp dword 24:ROM+lm64
bits 64
lm64:   mov r8,0x123456789ABCDEF0
        mov rax,cr4
        or eax,0x600
        mov cr4,rax
        pcmpeqd xmm1,xmm1
%endif
h:      jmp h
bits 16
 times 0xfff0-($-$$) db 0xf4
 jmp 0xf000:start
 times 0x10000-($-$$) db 0
