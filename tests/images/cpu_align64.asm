; Alignment checks in 64-bit code of ring 3, a line a check (SDM vol. 3A, 6.15, "Interrupt 17", and table 6-7): operands and
; stacks at multiples of 16, and 1, 2, 4 and 8 bytes behind them. ROM: QEMU -bios, v2e run --firmware. A check prints its name,
; the frame of the exception that ended it, which is #UD (6) where there was none, and =DIGEST of the memory around its
; operand. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames64.inc"

HERE            equ 0x110000            ; operands
TOP             equ 0x111000            ; of stacks
FS_BASE         equ 0xC0000100
FS_AT           equ 0x10002
AC              equ 1 << 18

; In ring 3 with stack pointer %2, where a frame to return with stands: %1 name, the rest instructions, each in braces
%macro USER 3-*
        call mark64
        db 10, %1, 0
        mov ebx, %2
        call preset
        mov qword [GO_TO], F(%%next)
        push UDATA
        push %2
        push qword AC | 2
        push UCODE64
        push F(%%in)
        iretq
%%in:
  %rotate 2
  %rep %0 - 2
        %1
    %rotate 1
  %endrep
        ud2
%%next: call outcome
%endmacro

org 0
rom:
GUEST_SERVICES 16
GUEST_SERVICES 32
GUEST_SERVICES 64
FRAMES64
LONG_START
        mov rax, cr4
        or eax, 0x600                   ; OSFXSR, OSXMMEXCPT
        mov cr4, rax
        mov ecx, FS_BASE
        mov eax, FS_AT
        xor edx, edx
        wrmsr
        SET_GATE 0x31, user_ud, UCODE64 & 0xFFFC, 0xEE, 0
        mov rax, cr0
        or eax, 1 << 18                 ; AM
        mov cr0, rax
%assign at 0
%rep 5
  %assign x HERE + at
  %assign top TOP + at
  %define D '0' + at
        USER {'load-8-', D}, TOP, {mov al, [x]}
        USER {'load-16-', D}, TOP, {mov ax, [x]}
        USER {'load-32-', D}, TOP, {mov eax, [x]}
        USER {'load-64-', D}, TOP, {mov rax, [x]}
        USER {'relative-', D}, TOP, {mov rax, [rel user_ud - ROM + 8 + at]}
        USER {'moffs-', D}, TOP, {mov rax, [qword x]}
        USER {'add-', D}, TOP, {add [r8 + at], rax}
        USER {'base-index-', D}, TOP, {add [r8 + rcx * 2 + at], rax}
        USER {'narrow-', D}, TOP, {mov [r10d + x], eax}
        USER {'fs-', D}, TOP, {mov rax, [fs:x - FS_AT]}
        USER {'fs-odd-', D}, TOP, {mov rax, [fs:HERE - 2 + at]}
        USER {'movsxd-', D}, TOP, {movsxd rax, dword [x]}
        USER {'movsx-', D}, TOP, {movsx rax, word [x]}
        USER {'bts-', D}, TOP, {mov rax, 64}, {bts [x], rax}
        USER {'bt-32-', D}, TOP, {mov eax, 96}, {bt [x], eax}
        USER {'cmpxchg8b-', D}, TOP, {cmpxchg8b [x]}
        USER {'cmpxchg16b-', D}, TOP, {cmpxchg16b [x]}
        USER {'xadd-', D}, TOP, {xadd [x], r11}
        USER {'lss-32-', D}, TOP, {lss eax, [TOP - 0x40 + at]}
        USER {'sgdt-', D}, TOP, {sgdt [x]}
        USER {'sgdt-6-', D}, TOP, {sgdt [x + 6]}
        USER {'lgdt-', D}, TOP, {lgdt [x]}
        USER {'sldt-', D}, TOP, {sldt [x]}
        USER {'jmp-', D}, top, {jmp [top]}
        USER {'call-memory-', D}, top, {call [top]}
        USER {'call-at-', D}, top, {call [F(target)]}
        USER {'call-', D}, top, {call user_ud}
        USER {'jmp-far-', D}, top, {jmp far dword [top]}
        USER {'call-far-', D}, top, {call far dword [F(pointer)]}
        USER {'call-far-64-', D}, top, {o64 call far [F(pointer64)]}
        USER {'call-far-64-memory-', D}, TOP, {o64 call far [x]}
        USER {'call-gate-', D}, top, {call far dword [F(gate_pointer)]}
        USER {'movsq-', D}, TOP, {mov esi, HERE}, {mov edi, x}, {movsq}
        USER {'lodsd-', D}, TOP, {mov esi, x}, {lodsd}
        USER {'rep-stosq-', D}, TOP, {mov edi, x}, {rep stosq}
        USER {'rep-stosq-none-', D}, TOP, {mov rcx, 0}, {mov edi, x}, {rep stosq}
        USER {'rep-stosq-narrow-', D}, TOP, {mov rcx, 1 << 32}, {mov edi, x}, {a32 rep stosq}
        USER {'push-', D}, top, {push rax}
        USER {'push-16-', D}, top, {push ax}
        USER {'push-memory-', D}, TOP, {push qword [x]}
        USER {'push-fs-', D}, top, {push fs}
        USER {'pop-', D}, top, {pop rax}
        USER {'pop-memory-', D}, TOP, {pop qword [x]}
        USER {'pushfq-', D}, top, {pushfq}
        USER {'popfq-', D}, top, {popfq}
        USER {'enter-', D}, top, {enter 8, 0}
        USER {'leave-', D}, TOP, {mov ebp, top}, {leave}
        USER {'ret-', D}, top, {ret}
        USER {'retf-', D}, top, {retf}
        USER {'retf-64-', D}, top, {o64 retf}
        USER {'iretq-', D}, top, {iretq}
        USER {'iretd-', D}, top, {iretd}
        USER {'int-', D}, top, {int 0x31}
        USER {'fld-64-', D}, TOP, {fld qword [x]}
        USER {'fstp-80-', D}, TOP, {fld1}, {fstp tword [x]}
        USER {'fnstenv-', D}, TOP, {fnstenv [x]}
        USER {'fxsave-', D}, TOP, {fxsave64 [x + 0x100]}
        USER {'movq-', D}, TOP, {movq rax, xmm9}, {movq [x], xmm9}
        USER {'movq-rex-', D}, TOP, {pxor xmm1, xmm1}, {db 0x66, 0x48, 0x0F, 0x7E, 0x0C, 0x25}, {dd x}
        USER {'movd-', D}, TOP, {pxor xmm1, xmm1}, {movd [x], xmm1}
        USER {'cvtsi2sd-', D}, TOP, {cvtsi2sd xmm0, qword [x]}
        USER {'cvtsi2sd-32-', D}, TOP, {cvtsi2sd xmm0, dword [x]}
        USER {'movnti-', D}, TOP, {movnti [x], rax}
        USER {'movups-', D}, TOP, {movups xmm9, [x]}
        USER {'movaps-', D}, TOP, {movaps xmm9, [x]}
        USER {'movlps-', D}, TOP, {movlps xmm9, [x]}
  %assign at at * 2 + (at == 0)
%endrep
        TEST 64, 'end'
        mov al, 0
        jmp finish64

        align 16
user_ud:
        ud2

; Registers as checks begin with, with a frame to return with at RBX; R10 has only bits that narrow addresses drop
preset:
        cld
        mov esi, F(stubs)
        mov edi, HERE
        mov ecx, 0x60 / 8
        rep movsq
        mov edi, TOP - 0x80
        mov ecx, 0x100 / 8
        rep movsq
        mov dword [rbx], F(user_ud)
        mov dword [rbx + 4], 0
        mov dword [rbx + 8], UCODE64
        mov dword [rbx + 12], 0
        mov qword [rbx + 16], 2
        mov qword [rbx + 24], TOP
        mov qword [rbx + 32], UDATA
        fninit
        mov eax, 0x11223344
        mov ecx, 2
        mov edx, 0x55667788
        mov ebx, 0x99AABBCC
        mov r8d, HERE
        mov r10, 0x7FFF00000000
        mov r11, 0x0123456789ABCDEF
        cmp ecx, ecx
        ret

outcome:
        cld
        call mark64
        db ' =', 0
        xor edx, edx
        mov esi, HERE
        mov ecx, 0x60 / 4
        call sum
        mov esi, TOP - 0x80
        mov ecx, 0x100 / 4
        call sum
        mov eax, edx
        jmp hex8_64
sum:    rol edx, 5
        add edx, [rsi]
        add esi, 4
        loop sum
        ret

        align 8
target: dq F(user_ud)
pointer: dd F(user_ud)
        dw UCODE64
        align 8
pointer64: dq F(user_ud)
        dw UCODE64
        align 8
gate_pointer: dd 0
        dw GATE3
        align 8
GDT64
UCODE64         equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xFB, 0xA
UDATA           equ ($ - gdt) | 3
        SEGMENT 0, 0xFFFFF, 0xF3, 0xC
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x67, 0x89, 0
        dq 0
GATE3           equ ($ - gdt) | 3
        dw (user_ud - rom) & 0xFFFF, UCODE64 & 0xFFFC, 0xEC00, ROM >> 16
        dq 0
gdt_end:
TABLE_REGISTERS64
RESET_VECTOR start
