; Alignment checks in ring 3 and V86 mode, a line a check (SDM vol. 3A, 6.15, "Interrupt 17", and table 6-7): operands of all
; kinds and stacks at multiples of 8, 1, 2 and 4 bytes behind them, what CR0.AM, EFLAGS.AC and the ring have to do with it, and what comes
; first. ROM: QEMU -bios, v2e run --firmware. A check prints its name, the frame of the exception that ended it, which is
; #UD (6) where there was none, and =DIGEST of the memory around its operand. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS             equ 0xA000
RING0_STACK     equ 0x6800
V86_CODE        equ 0x20000
HERE            equ 0x30000             ; operands
TOP             equ 0x31000             ; of stacks
BASE            equ 0x32001             ; of ODD
AC              equ 1 << 18
AM              equ 1 << 18
CR0_BITS        equ 0x608               ; dd: what is set in CR0 for the checks to come
FLAGS           equ 0x60C               ; dd: EFLAGS of the checks to come

; In ring 3 with stack pointer %2, where a frame to return with stands: %1 name, the rest instructions, each in braces
%macro USER 3-*
        call mark32
        db 10, %1, 0
        mov ebx, %2
        call preset
        mov dword [GO_TO], F(%%next)
        push dword UDATA32
        push dword %2
        push dword [FLAGS]
        push dword UCODE32
        push dword F(%%in)
        mov ebx, HERE
        iretd
%%in:
  %rotate 2
  %rep %0 - 2
        %1
    %rotate 1
  %endrep
        ud2
%%next: call outcome
%endmacro

; In V86 mode with DS, ES and SS at HERE: %1 name, %2 SP, %3 bytes of its frame's items, then code
%macro V86 4+
        call mark32
        db 10, %1, 0
        call fill
%if %3 = 2
        mov dword [HERE + %2], (V86_CODE >> 4) << 16 | 0x100
        mov word [HERE + %2 + 4], 0x3002
%elif %3 = 4
        mov dword [HERE + %2], 0x100
        mov dword [HERE + %2 + 4], V86_CODE >> 4
        mov dword [HERE + %2 + 8], 0x3002
%endif
        mov esi, F(%%code)
        mov edi, V86_CODE
        mov ecx, %%end - %%code
        rep movsb
        mov dword [GO_TO], F(%%next)
        mov eax, 0x11223344
        mov ecx, 2
        mov ebx, 0x101
        push dword 0
        push dword 0
        push dword HERE >> 4
        push dword HERE >> 4
        push dword HERE >> 4
        push dword %2
        push dword 0x23002 | AC
        push dword V86_CODE >> 4
        push dword 0
        iretd
bits 16
%%code: %4
        ud2
%%end:
bits 32
%%next: call outcome
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS, 0x200, RING0_STACK, 0x88
        mov eax, TSS_SEL
        ltr ax
        mov eax, cr4
        or eax, 0x601                   ; OSFXSR, OSXMMEXCPT; VME
        mov cr4, eax
        mov eax, ODD
        mov fs, eax
        mov dword [V86_CODE + 0x100], 0x0B0F
        mov dword [V86_CODE + 0x200], (V86_CODE >> 4) << 16 | 0x100
        mov dword [IDT + 0x31 * 8], ((user_ud - rom) & 0xFFFF) | (UCODE32 & 0xFFFC) << 16
        mov dword [IDT + 0x31 * 8 + 4], ROM | 0xEE00
        mov dword [IDT + 0x32 * 8], 0x100 | (UCODE16 & 0xFFFC) << 16
        mov dword [IDT + 0x32 * 8 + 4], 0xE600
        mov byte [IDT + 3 * 8 + 5], 0xEE
        mov dword [0x31 * 4], (V86_CODE >> 4) << 16 | 0x100
        mov dword [FLAGS], 0x3002 | AC
        mov dword [CR0_BITS], AM
; ----- operands and stacks
%assign at 0
%rep 4
  %assign x HERE + at
  %assign top TOP + at
  %define D '0' + at
        USER {'load-8-', D}, TOP, {mov al, [x]}
        USER {'load-16-', D}, TOP, {mov ax, [x]}
        USER {'load-32-', D}, TOP, {mov eax, [x]}
        USER {'store-32-', D}, TOP, {mov [ebx + at], eax}
        USER {'moffs-', D}, TOP, {mov [dword x], eax}
        USER {'add-16-', D}, TOP, {add [ebx + at], ax}
        USER {'cmpxchg-', D}, TOP, {cmpxchg [x], ecx}
        USER {'cmpxchg8b-', D}, TOP, {cmpxchg8b [x]}
        USER {'movzx-', D}, TOP, {movzx eax, word [x]}
        USER {'bt-', D}, TOP, {mov eax, 40}, {bt [x], eax}
        USER {'bts-16-', D}, TOP, {mov eax, -1}, {bts [x + 2], ax}
        USER {'bound-16-', D}, TOP, {xor eax, eax}, {mov dword [x], 0x10000000}, {bound ax, [x]}
        USER {'bound-', D}, TOP, {xor eax, eax}, {bound eax, [ebx + at]}
        USER {'les-', D}, TOP, {les eax, [x]}
        USER {'les-16-', D}, TOP, {o16 les ax, [x]}
        USER {'mov-sreg-', D}, TOP, {mov es, [x]}
        USER {'to-sreg-', D}, TOP, {mov [x], es}
        USER {'sldt-', D}, TOP, {sldt [x]}
        USER {'smsw-', D}, TOP, {smsw [x]}
        USER {'verr-', D}, TOP, {verr [x]}
        USER {'arpl-', D}, TOP, {arpl [x], ax}
        USER {'lar-', D}, TOP, {lar eax, [x]}
        USER {'sgdt-', D}, TOP, {sgdt [x]}
        USER {'sidt-16-', D}, TOP, {o16 sidt [x]}
        USER {'lgdt-', D}, TOP, {lgdt [x]}
        USER {'jmp-memory-', D}, top, {jmp [top]}
        USER {'jmp-far-', D}, top, {jmp far [top]}
        USER {'jmp-far-16-', D}, top, {o16 jmp far [top]}
        USER {'movs-', D}, TOP, {mov esi, HERE}, {mov edi, x}, {movsd}
        USER {'movs-from-', D}, TOP, {mov esi, x}, {mov edi, HERE}, {movsw}
        USER {'rep-stos-', D}, TOP, {mov ecx, 3}, {mov edi, x}, {rep stosd}
        USER {'rep-stos-none-', D}, TOP, {mov ecx, 0}, {mov edi, x}, {rep stosd}
        USER {'cmps-', D}, TOP, {mov esi, HERE}, {mov edi, x}, {cmpsd}
        USER {'ins-', D}, TOP, {mov edx, 0x7770}, {mov edi, x}, {insw}
        USER {'outs-', D}, TOP, {mov edx, 0x80}, {mov esi, x}, {outsd}
        USER {'xlat-', D}, TOP, {xor eax, eax}, {lea ebx, [x]}, {xlatb}
        USER {'fld-32-', D}, TOP, {fld dword [x]}
        USER {'fst-64-', D}, TOP, {fld1}, {fst qword [x]}
        USER {'fild-16-', D}, TOP, {fild word [x]}
        USER {'fistp-64-', D}, TOP, {fld1}, {fistp qword [x]}
        USER {'fld-80-', D}, TOP, {fld tword [x]}
        USER {'fstp-80-', D}, TOP, {fld1}, {fstp tword [x]}
        USER {'fbstp-', D}, TOP, {fld1}, {fbstp [x]}
        USER {'fldcw-', D}, TOP, {fldcw [x]}
        USER {'fnstsw-', D}, TOP, {fnstsw [x]}
        USER {'fnstenv-', D}, TOP, {fnstenv [x]}
        USER {'fnstenv-16-', D}, TOP, {o16 fnstenv [x]}
        USER {'fldenv-', D}, TOP, {fldenv [x]}
        USER {'fnsave-', D}, TOP, {fnsave [x]}
        USER {'frstor-16-', D}, TOP, {o16 frstor [x]}
        USER {'fxsave-', D}, TOP, {fxsave [x + 0x100]}
        USER {'ldmxcsr-', D}, TOP, {ldmxcsr [x]}
        USER {'movq-mmx-', D}, TOP, {movq mm0, [x]}
        USER {'movd-mmx-', D}, TOP, {pxor mm0, mm0}, {movd [x], mm0}
        USER {'punpckl-', D}, TOP, {punpcklbw mm0, [x]}
        USER {'movntq-', D}, TOP, {movntq [x], mm0}
        USER {'movnti-', D}, TOP, {movnti [x], eax}
        USER {'movss-', D}, TOP, {movss xmm0, [x]}
        USER {'movsd-', D}, TOP, {movsd [x], xmm0}
        USER {'movhps-', D}, TOP, {movhps xmm0, [x]}
        USER {'cvtsi2ss-', D}, TOP, {cvtsi2ss xmm0, [x]}
        USER {'cvtps2pd-', D}, TOP, {cvtps2pd xmm0, [x]}
        USER {'movups-', D}, TOP, {movups xmm0, [x]}
        USER {'movdqu-', D}, TOP, {movdqu [x], xmm0}
        USER {'movaps-', D}, TOP, {movaps xmm0, [x]}
        USER {'paddb-', D}, TOP, {paddb xmm0, [x]}
        USER {'clflush-', D}, TOP, {clflush [x]}
        USER {'prefetch-', D}, TOP, {prefetchnta [x]}
        USER {'lea-', D}, TOP, {lea eax, [x]}
        USER {'push-', D}, top, {push eax}
        USER {'push-16-', D}, top, {push ax}
        USER {'push-immediate-', D}, top, {push byte 1}
        USER {'push-memory-', D}, TOP, {push dword [x]}
        USER {'push-at-', D}, top, {push dword [HERE]}
        USER {'pushad-', D}, top, {pushad}
        USER {'pushfd-', D}, top, {pushfd}
        USER {'pop-', D}, top, {pop eax}
        USER {'pop-16-', D}, top, {pop ax}
        USER {'pop-memory-', D}, TOP, {pop dword [x]}
        USER {'popad-', D}, top, {popad}
        USER {'popf-', D}, top, {popf}
        USER {'enter-', D}, top, {enter 4, 0}
        USER {'enter-frame-', D}, TOP, {enter at, 0}
        USER {'enter-2-', D}, TOP, {mov ebp, top}, {enter 4, 2}
        USER {'leave-', D}, TOP, {mov ebp, top}, {leave}
        USER {'call-', D}, top, {call user_ud}
        USER {'ret-', D}, top, {ret}
        USER {'retf-', D}, top, {retf}
        USER {'retf-16-', D}, top, {o16 retf}
        USER {'iretd-', D}, top, {iretd}
        USER {'call-far-', D}, top, {call UCODE32:F(user_ud)}
        USER {'call-far-16-', D}, top, {o16 call UCODE16:0x100}
        USER {'call-gate-', D}, top, {call GATE:0}
        USER {'call-gate-16-', D}, top, {call GATE16:0}
        USER {'call-gate-inwards-', D}, top, {call GATE0:0}
        USER {'call-gate-parameter-', D}, top, {call GATE_PARAMETER:0}
        USER {'int-', D}, top, {int 0x31}
        USER {'int-16-', D}, top, {int 0x32}
        USER {'int3-', D}, top, {int3}
        USER {'ss-', D}, TOP, {mov ebp, x}, {mov eax, [ebp + 0]}
        USER {'odd-base-', D}, TOP, {mov eax, [fs:at]}
        USER {'odd-base-16-', D}, TOP, {a16 mov ax, [fs:at]}
        USER {'odd-base-push-', D}, TOP, {push dword [fs:at]}
        V86 {'v86-load-', D}, 0x800, 0, {mov ax, [at]}
        V86 {'v86-load-32-', D}, 0x800, 0, {mov eax, [at]}
        V86 {'v86-add-', D}, 0x800, 0, {add [bx + at], ax}
        V86 {'v86-les-', D}, 0x800, 0, {les ax, [at]}
        V86 {'v86-stos-', D}, 0x800, 0, {mov di, at}, {rep stosw}
        V86 {'v86-push-', D}, 0x800 + at, 0, {push ax}
        V86 {'v86-pusha-', D}, 0x800 + at, 0, {pusha}
        V86 {'v86-pop-', D}, 0x800 + at, 2, {pop eax}
        V86 {'v86-popf-', D}, 0x800 + at, 2, {popf}
        V86 {'v86-call-', D}, 0x800 + at, 0, {call near [cs:0x200]}
        V86 {'v86-call-far-', D}, 0x800 + at, 0, {call 0x2000:0x100}
        V86 {'v86-call-far-32-', D}, 0x800 + at, 0, {call dword 0x2000:0x100}
        V86 {'v86-call-far-memory-', D}, 0x800, 0, {call far [cs:0x200 + at]}
        V86 {'v86-retf-', D}, 0x800 + at, 2, {retf}
        V86 {'v86-iret-', D}, 0x800 + at, 2, {iret}
        V86 {'v86-iretd-', D}, 0x800 + at, 4, {iretd}
        V86 {'v86-int-redirected-', D}, 0x800 + at, 0, {int 0x31}
  %assign at at * 2 + (at == 0)
%endrep
; ----- what may come first
        USER 'limit', TOP, {mov eax, SMALL}, {mov es, ax}, {mov eax, [es:0xFFE]}
        USER 'read-only', TOP, {mov eax, READ_ONLY}, {mov es, ax}, {mov [es:1], eax}
        USER 'absent-segment', TOP, {xor eax, eax}, {mov es, ax}, {mov eax, [es:1]}
        USER 'undefined', TOP, {lock mov eax, [HERE + 1]}
        USER 'ltr', TOP, {ltr [HERE + 1]}
        USER 'lmsw', TOP, {lmsw [HERE + 1]}
        USER 'selector', TOP, {mov es, [HERE + 1]}
        mov dword [CR0_BITS], AM | 8
        USER 'ts-fld', TOP, {fld dword [HERE + 1]}
        USER 'ts-movss', TOP, {movss xmm0, [HERE + 1]}
        USER 'ts-movq', TOP, {movq mm0, [HERE + 1]}
        USER 'ts-ldmxcsr', TOP, {ldmxcsr [HERE + 1]}
        USER 'ts-mov', TOP, {mov eax, [HERE + 1]}
        mov dword [CR0_BITS], AM | 4
        USER 'em-fld', TOP, {fld dword [HERE + 1]}
        USER 'em-movss', TOP, {movss xmm0, [HERE + 1]}
        USER 'em-ldmxcsr', TOP, {ldmxcsr [HERE + 1]}
        mov dword [CR0_BITS], AM
        mov eax, cr4
        and eax, ~0x200
        mov cr4, eax
        USER 'no-osfxsr-movss', TOP, {movss xmm0, [HERE + 1]}
        USER 'no-osfxsr-movq', TOP, {movq mm0, [HERE + 1]}
        USER 'no-osfxsr-movq-xmm', TOP, {movq xmm0, [HERE + 1]}
        USER 'no-osfxsr-stmxcsr', TOP, {stmxcsr [HERE + 1]}
        mov eax, cr4
        or eax, 0x200
        mov cr4, eax
; ----- what allows and asks for it
        USER 'ac-cleared', TOP, {pushfd}, {and dword [esp], ~AC}, {popfd}, {mov eax, [HERE + 1]}
        USER 'ac-cleared-and-set', TOP, {push dword AC | 0x3002}, {push dword 0x3002}, {popfd}, {mov eax, [HERE + 1]}, {popfd}, {mov eax, [HERE + 2]}
        mov dword [FLAGS], 0x3002
        USER 'ac-clear', TOP, {mov eax, [HERE + 1]}
        USER 'ac-set', TOP, {push dword AC | 0x3002}, {popfd}, {mov eax, [HERE + 1]}
        USER 'ac-set-by-popf-16', TOP, {push dword AC | 0x3002}, {o16 popf}, {mov eax, [HERE + 1]}
        USER 'ac-set-by-iretd', TOP, {push dword AC | 0x3002}, {push dword UCODE32}, {push dword F(.load)}, {iretd}
        mov dword [CR0_BITS], 0
        USER 'am-clear', TOP, {push dword AC | 0x3002}, {popfd}, {mov eax, [HERE + 1]}
        mov dword [FLAGS], 0x3002 | AC
        USER 'am-clear-ac', TOP, {mov eax, [HERE + 1]}
        mov dword [CR0_BITS], AM
        USER 'am-set-again', TOP, {mov eax, [HERE + 1]}
        call mark32
        db 10, 'ring-0', 0
        push dword AC | 2
        popfd
        mov eax, [HERE + 1]
        push dword [HERE + 3]
        pop dword [HERE + 1]
        FAULTS 'ring-0-ud', ud2
        push dword 2
        popfd
        TEST 32, 'end'
        mov al, 0
        jmp finish32
.load:  mov eax, [HERE + 1]
        ud2

user_ud:
        ud2

fill:
        cld
        mov esi, F(stubs)
        mov edi, HERE
        mov ecx, 0x40 / 4
        rep movsd
        mov edi, HERE + 0x7C0
        mov ecx, 0x80 / 4
        rep movsd
        mov edi, TOP - 0x40
        mov ecx, 0x80 / 4
        rep movsd
        mov edi, V86_CODE + 0x204
        mov ecx, 2
        rep movsd
        mov eax, cr0
        and eax, ~(AM | 0xC)
        or eax, [CR0_BITS]
        and dword [CR0_BITS], AM | 0xC
        mov cr0, eax
        ret

; Registers as checks begin with, with a frame to return with at EBX
preset:
        push ebx
        fninit
        call fill
        pop ebx
        mov dword [ebx], F(user_ud)
        mov dword [ebx + 4], UCODE32
        mov dword [ebx + 8], 0x3002
        mov eax, UDATA32
        mov ds, eax
        mov es, eax
        mov eax, 0x11223344
        mov ecx, 2
        mov edx, 0x55667788
        ret

outcome:
        mov eax, cr0
        and eax, ~0xC
        mov cr0, eax
        mov eax, ODD
        mov fs, eax
        cld
        call mark32
        db ' =', 0
        xor edx, edx
        mov esi, HERE
        mov ecx, 0x40 / 4
        call sum
        mov esi, HERE + 0x7C0
        mov ecx, 0x80 / 4
        call sum
        mov esi, TOP - 0x40
        mov ecx, 0x80 / 4
        call sum
        mov eax, edx
        jmp hex8_32
sum:    rol edx, 5
        add edx, [esi]
        add esi, 4
        loop sum
        ret

inner:  ud2
TABLE_REGISTERS32
        align 8
GDT32
GDT32_USER
TSS_SEL         equ $ - gdt
        SEGMENT TSS, 0x87, 0x89, 0
ODD             equ ($ - gdt) | 3
        SEGMENT BASE, 0xFFFF, 0xF3, 4
SMALL           equ ($ - gdt) | 3
        SEGMENT HERE, 0xFFF, 0xF3, 4
READ_ONLY       equ ($ - gdt) | 3
        SEGMENT HERE, 0xFFFFF, 0xF1, 0xC
UCODE16         equ ($ - gdt) | 3
        SEGMENT V86_CODE, 0xFFFF, 0xFB, 0
GATE            equ ($ - gdt) | 3
        dw (user_ud - rom) & 0xFFFF, UCODE32 & 0xFFFC, 0xEC00, ROM >> 16
GATE16          equ ($ - gdt) | 3
        dw 0x100, UCODE16 & 0xFFFC, 0xE400, 0
GATE0           equ ($ - gdt) | 3
        dw (inner - rom) & 0xFFFF, CODE32, 0xEC00, ROM >> 16
GATE_PARAMETER  equ ($ - gdt) | 3
        dw (inner - rom) & 0xFFFF, CODE32, 0xEC01, ROM >> 16
gdt_end:
RESET_VECTOR start
