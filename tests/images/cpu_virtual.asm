; Virtual-8086 mode extensions and protected-mode virtual interrupts, a line a check: instructions that ask IOPL, in V86
; code and in ring 3, with CR4.VME and CR4.PVI, IOPL, VIF and VIP each 0 and 1 (SDM vol. 3A, 20.3 and 20.4). Each ends
; with an exception, its own or that of the HLT behind it; its frame and a digest of the stack show what it did. ROM: v2e
; run --firmware; ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
index           equ 0x620
setting         equ 0x624               ; bits: 0 and 1 CR4.VME and PVI, 2 IOPL, 3 VIF, 4 VIP, 5 ring 3 instead of V86
USER_STACK      equ 0x5000

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x100, 0x6800, 0x88        ; the redirection bitmap is at 68h
        mov byte [TSS + 0x68 + 0x32 / 8], 1 << 2        ; INT 32h is not redirected
        mov eax, TSS_SEL
        ltr ax
        mov dword [0x30 * 4], ((ROM >> 4) << 16) | (in_table - rom)
        mov dword [0x32 * 4], ((ROM >> 4) << 16) | (in_table - rom)
        mov dword [3 * 4], ((ROM >> 4) << 16) | (in_table - rom)
        SET_GATE 0x30, STUB(0x30), CODE32, 0xEE
        SET_GATE 0x32, STUB(0x32), CODE32, 0xEE
        SET_GATE 3, STUB(3), CODE32, 0xEE
        mov dword [setting], 0
next_setting:
        mov dword [index], 0
check:
        cld
        mov al, 10
        out 0xE9, al
        mov eax, [setting]
        call hex2_32
        mov al, '-'
        out 0xE9, al
        mov ebx, [index]
        shl ebx, 5
        lea esi, [F(cases) + ebx]
.text:  lodsb
        cmp al, 0
        je .named
        out 0xE9, al
        jmp .text
.named: mov eax, [setting]
        and eax, 3
        mov cr4, eax
        mov dword [GO_TO], F(back)
        mov edi, USER_STACK - 0x20
        mov eax, 0x5A5A5A5A
        mov ecx, 16
        rep stosd
        mov eax, [F(cases) + ebx + 24]  ; what a pop finds
        mov [USER_STACK], eax
        mov eax, [F(cases) + ebx + 28]
        mov [USER_STACK + 4], eax
        mov ecx, [setting]              ; the flags
        mov edx, 0x0002
        test ecx, 4
        jz .iopl_0
        or edx, 3 << 12
.iopl_0:
        test ecx, 8
        jz .vif_0
        or edx, 1 << 19
.vif_0: test ecx, 16
        jz .vip_0
        or edx, 1 << 20
.vip_0: test ecx, 32
        jnz .ring_3
        or edx, 1 << 17
        push dword 0x44
        push dword 0x33
        push dword 0x22
        push dword 0x11
        push dword 0
        push dword USER_STACK
        push edx
        push dword ROM >> 4
        push dword [F(cases) + ebx + 20]
        iretd
.ring_3:
        push dword UDATA32
        push dword USER_STACK
        push edx
        push dword UCODE_ROM
        push dword [F(cases) + ebx + 20]
        iretd

back:   mov al, '='
        out 0xE9, al
        xor edx, edx
        mov esi, USER_STACK - 0x20
        mov ecx, 12
.sum:   rol edx, 5
        add edx, [esi]
        add esi, 4
        loop .sum
        mov eax, edx
        call hex8_32
        inc dword [index]
        cmp dword [index], (cases_end - cases) / 32
        jb check
        inc dword [setting]
        cmp dword [setting], 64
        jb next_setting
        TEST 32, 'end'
        mov al, 0
        jmp finish32

bits 16
in_table:
        hlt
op_cli: cli
        hlt
op_sti: sti
        hlt
op_pushf:
        pushf
        hlt
op_o32_pushf:
        o32 pushf
        hlt
op_popf:
        popf
        hlt
op_o32_popf:
        o32 popf
        hlt
op_iret:
        iret
op_int: int 0x30
        hlt
op_int_gate:
        int 0x32
        hlt
op_int3:
        int3
        hlt
op_ds_cli:
        db 0x3E                         ; a prefix
        cli
        hlt
op_hlt: hlt

; name, code, and two dwords on the stack
%macro CASE 3-4 0
%%name: db %1, 0
        times 20 - ($ - %%name) db 0
        dd %2 - rom, %3, %4
%endmacro
        align 4
cases:
        CASE 'cli', op_cli, 0
        CASE 'sti', op_sti, 0
        CASE 'prefix-cli', op_ds_cli, 0
        CASE 'pushf', op_pushf, 0
        CASE 'o32-pushf', op_o32_pushf, 0
        CASE 'popf-0', op_popf, 0x0002
        CASE 'popf-all', op_popf, 0x7ED7
        CASE 'popf-if', op_popf, 0x0202
        CASE 'popf-status', op_popf, 0x0CD7
        CASE 'popf-tf', op_popf, 0x0102
        CASE 'o32-popf', op_o32_popf, 0x3F0AD7
        CASE 'iret-0', op_iret, ((ROM >> 4) << 16) | (op_hlt - rom), 0x0002
        CASE 'iret-if', op_iret, ((ROM >> 4) << 16) | (op_hlt - rom), 0x3202
        CASE 'iret-nt', op_iret, ((ROM >> 4) << 16) | (op_hlt - rom), 0x4CD7
        CASE 'int', op_int, 0
        CASE 'int-gate', op_int_gate, 0
        CASE 'int3', op_int3, 0
        CASE 'hlt', op_hlt, 0
cases_end:

        align 8
GDT32
UDATA32         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
UCODE_ROM       equ ($ - gdt) | 3
        SEGMENT ROM, 0xFFFF, 0xFB, 0x0
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x88, 0x89, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
