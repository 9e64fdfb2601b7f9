; The stack segment's limits in protected mode, seen from ring 3 so that handlers have a stack of their own: expand-up and
; expand-down, 32- and 16-bit, pushes, pops, frames, and operands addressed through SS.
; ROM: QEMU -bios, v2e run --firmware. A check prints its name, the frame of an exception, and
; =DIGEST:ESP with the stack pointer after it. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000
AREA            equ 0x20000
EDGE            equ 0x1000

; %1 name, %2 stack selector, %3 ESP, then instructions, each in braces
%macro STACKED 4-*
        call mark32
        db 10, %1, 0
        call preset
        mov dword [RESUME], F(%%after)
        mov ax, %2
        mov ss, ax
        mov esp, %3
        mov eax, 0x11223344
  %rep %0 - 3
    %rotate 1
        %3
  %endrep
%%after:
        mov [0x608], esp
        mov esp, UDATA32
        mov ss, esp
        mov esp, USER_STACK
        call outcome
%endmacro

; Each of %2 on the stacks of the suite, where it just fits and where it does not. %1 name, %2 bytes, %3 instruction
%macro PUSHES 3
        STACKED {%1, '-up-fits'}, UP32, EDGE, {%3}
        STACKED {%1, '-up-low'}, UP32, %2, {%3}
        STACKED {%1, '-up-under'}, UP32, %2 - 1, {%3}
        STACKED {%1, '-up-over'}, UP32, EDGE + 1, {%3}
        STACKED {%1, '-down-fits'}, DOWN32, EDGE + %2, {%3}
        STACKED {%1, '-down-under'}, DOWN32, EDGE + %2 - 1, {%3}
        STACKED {%1, '-16-low'}, UP16, 0x77770000 + %2, {%3}
        STACKED {%1, '-16-wraps'}, UP16, 0x77770000, {%3}
        STACKED {%1, '-16-straddles'}, UP16, 0x77770000 + %2 - 1, {%3}
        STACKED {%1, '-down16-fits'}, DOWN16, EDGE + %2, {%3}
        STACKED {%1, '-down16-under'}, DOWN16, EDGE + %2 - 2, {%3}
%endmacro
%macro POPS 3
        STACKED {%1, '-up-fits'}, UP32, EDGE - %2, {%3}
        STACKED {%1, '-up-over'}, UP32, EDGE - %2 + 1, {%3}
        STACKED {%1, '-down-first'}, DOWN32, EDGE, {%3}
        STACKED {%1, '-down-under'}, DOWN32, EDGE - 1, {%3}
        STACKED {%1, '-16-top'}, UP16FULL, 0x77770000 + 0x10000 - %2, {%3}
        STACKED {%1, '-16-straddles'}, UP16FULL, 0x77770000 + 0x10000 - %2 + 1, {%3}
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x200, RING0_STACK, 0x68
        mov eax, TSS_SEL
        ltr ax
        push dword UDATA32
        push dword USER_STACK
        push dword 0x3002               ; IOPL 3
        push dword UCODE32
        push dword F(user)
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        iretd
user:
        PUSHES 'push-dword', 4, push eax
        PUSHES 'push-word', 2, push ax
        PUSHES 'push-imm', 4, push dword 0x12345678
        PUSHES 'push-imm8', 2, push word 0x12
        PUSHES 'push-sreg', 4, push ds
        PUSHES 'pushfd', 4, pushfd
        PUSHES 'pusha', 16, pushaw
        PUSHES 'pushad', 32, pushad
        PUSHES 'call', 4, call near far_target
        PUSHES 'push-mem', 4, push dword [0x700]
        PUSHES 'enter', 4, {enter 0, 0}
        PUSHES 'enter-frame', 12, {enter 8, 0}
        PUSHES 'enter-1', 8, {enter 0, 1}
        POPS 'pop-dword', 4, pop ecx
        POPS 'pop-word', 2, pop cx
        POPS 'pop-sreg', 4, pop es
        POPS 'popfd', 4, popfd
        POPS 'popa', 16, popaw
        POPS 'popad', 32, popad
        POPS 'pop-mem', 4, pop dword [0x700]
%define FAR_CALL call UCODE32:F(far_target)
        PUSHES 'call-far', 8, FAR_CALL
        STACKED 'ret-up-over', UP32, EDGE - 3, {ret}
        STACKED 'ret-down-under', DOWN32, EDGE - 1, {ret}
        STACKED 'retf-up-over', UP32, EDGE - 7, {retf}
        STACKED 'retf-up-over-second', UP32, EDGE - 4, {retf}
        STACKED 'iretd-up-over', UP32, EDGE - 11, {iretd}
        STACKED 'iretd-up-over-third', UP32, EDGE - 8, {iretd}
        STACKED 'leave-up-over', UP32, 0x100, {mov ebp, EDGE - 3}, {leave}
        STACKED 'leave-up-fits', UP32, 0x100, {mov ebp, EDGE - 4}, {leave}
        STACKED 'leave-16', UP16, 0x100, {mov ebp, 0x5555000C}, {leave}
        STACKED 'ebp-operand-over', UP32, 0x100, {mov ebp, EDGE - 3}, {mov eax, [ebp]}
        STACKED 'ebp-operand-fits', UP32, 0x100, {mov ebp, EDGE - 4}, {mov eax, [ebp]}
        STACKED 'ebp-store-over', UP32, 0x100, {mov ebp, EDGE}, {mov [ebp + 1], al}
        STACKED 'esp-operand-over', UP32, 0x100, {mov eax, [esp + EDGE - 0x100]}
        STACKED 'ss-override-over', UP32, 0x100, {inc dword [ss:EDGE - 1]}
        STACKED 'ebp-with-ds', UP32, 0x100, {mov ebp, 0x5000}, {mov al, [ds:ebp]}
        STACKED 'ebp-down-under', DOWN32, 0x2000, {mov ebp, EDGE - 1}, {mov al, [ebp]}
        STACKED 'ebp-down-first', DOWN32, 0x2000, {mov ebp, EDGE}, {mov al, [ebp]}
        STACKED 'ss-lodsb-over', UP32, 0x100, {mov esi, EDGE}, {ss lodsb}
        STACKED 'enter-2-reads-over', UP32, 0x100, {mov ebp, 0x2000}, {enter 0, 2}
        STACKED 'enter-2-fits', UP32, 0x100, {mov ebp, 0x200}, {enter 0, 2}, {mov ebp, 0}
        STACKED 'pop-esp-relative-over', UP32, EDGE - 4, {pop dword [esp]}
        STACKED 'pop-esp-relative-fits', UP32, EDGE - 8, {pop dword [esp]}
        STACKED 'int-from-full-stack', UP32, 0, {int 0x30}
        STACKED 'pop-ss-over', UP32, EDGE - 3, {pop ss}
        STACKED 'read-only-ss', UDATA32, 0x100, {mov ax, UREAD}, {mov ss, ax}
        call mark32
        db 10, 'end', 0
        mov al, 0
        jmp finish32

far_target:
        jmp dword [RESUME]

preset:
        pop dword [0x60C]
        mov edi, AREA
        mov eax, 0x03020100
        mov ecx, 16
        call fill
        mov edi, AREA + EDGE - 0x20
        mov ecx, 32
        call fill
        mov edi, AREA + 0xFFC0
        mov ecx, 20
        call fill
        mov edi, UDATA32
        mov es, edi
        mov ecx, 2
        mov edx, 0x55667788
        mov ebx, 0x0F00
        mov ebp, 0x0E00
        mov esi, 0x10
        mov edi, 0x40
        mov dword [0x700], 0x77777777
        cmp eax, eax
        jmp dword [0x60C]
fill:   mov [edi], eax
        add eax, 0x04040404
        and eax, 0xFEFEFEFE             ; popped flags must not have TF
        and eax, ~0x00007100
        add edi, 4
        loop fill
        ret
outcome:
        push dword 0x3202
        popfd
        cld
        pushad
        mov dword [RESUME], 0
        xor edx, edx
        mov ecx, 8
        mov esi, esp
        call sum
        mov esi, AREA
        mov ecx, 16
        call sum
        mov esi, AREA + EDGE - 0x20
        mov ecx, 32
        call sum
        mov esi, AREA + 0xFFC0
        mov ecx, 20
        call sum
        mov esi, 0x700
        mov ecx, 1
        call sum
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, edx
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, [0x608]
        call hex8_32
        popad
        ret
sum:    rol edx, 5
        add edx, [esi]
        add esi, 4
        loop sum
        ret

        align 8
GDT32
GDT32_USER
UP32            equ ($ - gdt) | 3
        SEGMENT AREA, EDGE - 1, 0xF3, 0x4
DOWN32          equ ($ - gdt) | 3
        SEGMENT AREA, EDGE - 1, 0xF7, 0x4
UP16            equ ($ - gdt) | 3
        SEGMENT AREA, 0xFFFF, 0xF3, 0x0
UP16FULL        equ ($ - gdt) | 3
        SEGMENT AREA, 0xFFFF, 0xF3, 0x0
DOWN16          equ ($ - gdt) | 3
        SEGMENT AREA, EDGE - 1, 0xF7, 0x0
UREAD           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF1, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
