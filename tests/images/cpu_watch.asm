; Data breakpoints of DR0 to DR3, a line a check: operands of every kind, lengths and addresses, instructions that fault behind
; the access, MOV SS and POP SS, frames that exceptions and calls push, what only touches memory, breakpoints on execution and
; single steps beside them (SDM vol. 3B, 17.2.4, 17.2.5 and 17.3.1). ROM: QEMU -bios, v2e run --firmware.
; A check prints its name, the frame of each exception, and =DR6. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
SPOT              equ 0x20040             ; what is watched
TOP             equ 0x6000              ; of a stack that is
HELD32          equ 0x610               ; dd: a stack pointer
VALUE           equ 0x614               ; dd: what is at SPOT
WRITE           equ 1
ACCESS          equ 3
EXECUTE         equ 0

%macro DR 2                             ; %1 number, %2 value
        mov eax, %2
        mov dr%1, eax
%endmacro
; %1 name, %2 the address in DR0, %3 R/W, %4 LEN in bytes, the rest instructions in braces; a fault goes on behind them
%macro WATCH 5-*
        call mark32
        db 10, %1, 0
        call preset
        DR 0, %2
        mov eax, 1 | (%3) << 16 | ((%4) - 1) << 18
        mov dr7, eax
        mov eax, 0x11223344
  %rotate 4
  %rep %0 - 4
        %1
    %rotate 1
  %endrep
        nop
        nop
%%after:
        call outcome
%endmacro
; The same, of instructions the last of which faults
%macro WATCH_FAULT 5-*
        call mark32
        db 10, %1, 0
        call preset
        DR 0, %2
        mov eax, 1 | (%3) << 16 | ((%4) - 1) << 18
        mov dr7, eax
        mov dword [RESUME], F(%%after)
        mov eax, 0x11223344
  %rotate 4
  %rep %0 - 4
        %1
    %rotate 1
  %endrep
        nop
%%after:
        call outcome
%endmacro

ROM32
PROTECTED_START
        mov eax, cr4
        or eax, 0x608                   ; OSFXSR, OSXMMEXCPT, DE
        mov cr4, eax

        mov dword [VALUE], 0x01020304
; ----- lengths and addresses
%assign len 1
%rep 3
  %define L '0' + len
        WATCH {'write-below-', L}, SPOT, WRITE, len, {mov [SPOT - 1], al}
        WATCH {'write-first-', L}, SPOT, WRITE, len, {mov [SPOT], al}
        WATCH {'write-last-', L}, SPOT, WRITE, len, {mov [SPOT + len - 1], al}
        WATCH {'write-above-', L}, SPOT, WRITE, len, {mov [SPOT + len], al}
        WATCH {'write-over-', L}, SPOT, WRITE, len, {mov [SPOT - 3], eax}
        WATCH {'write-up-to-', L}, SPOT, WRITE, len, {mov [SPOT - 4], eax}
        WATCH {'odd-address-', L}, SPOT + 3, WRITE, len, {mov [SPOT + 3 - 3 % len], al}
        WATCH {'odd-address-below-', L}, SPOT + 3, WRITE, len, {mov [SPOT + 2 - 3 % len], al}
        WATCH {'odd-address-last-', L}, SPOT + 1, WRITE, len, {mov [SPOT + 1], al}
        WATCH {'odd-address-above-', L}, SPOT + 1, WRITE, len, {mov [SPOT + 4], al}
        WATCH {'read-', L}, SPOT, ACCESS, len, {mov ebx, [SPOT]}
        WATCH {'read-of-write-', L}, SPOT, WRITE, len, {mov ebx, [SPOT]}
  %assign len len * 2
%endrep

; ----- kinds of operands
        WATCH 'same-value', SPOT, WRITE, 4, {mov ebx, [SPOT]}, {mov [SPOT], ebx}
        WATCH 'add', SPOT, WRITE, 4, {add [SPOT], eax}
        WATCH 'add-0', SPOT, WRITE, 4, {add dword [SPOT], 0}
        WATCH 'cmp', SPOT, WRITE, 4, {cmp [SPOT], eax}
        WATCH 'cmp-read', SPOT, ACCESS, 4, {cmp [SPOT], eax}
        WATCH 'test-read', SPOT, ACCESS, 4, {test [SPOT], eax}
        WATCH 'bt-register', SPOT, ACCESS, 4, {mov ebx, 0x202}, {bt [SPOT - 0x40], ebx}
        WATCH 'bts-register', SPOT, WRITE, 4, {mov ebx, 0x202}, {bts [SPOT - 0x40], ebx}
        WATCH 'xchg', SPOT, WRITE, 4, {xchg [SPOT], ebx}
        WATCH 'cmpxchg-fails', SPOT, WRITE, 4, {cmpxchg [SPOT], ebx}
        WATCH 'cmpxchg-stores', SPOT, WRITE, 4, {mov eax, [SPOT]}, {cmpxchg [SPOT], ebx}
        WATCH 'cmpxchg8b-first', SPOT, WRITE, 4, {cmpxchg8b [SPOT]}
        WATCH 'cmpxchg8b-second', SPOT + 4, WRITE, 4, {cmpxchg8b [SPOT]}
        WATCH 'xlat', SPOT, ACCESS, 1, {mov ebx, SPOT - 0x44}, {xlatb}
        WATCH 'bound-second', SPOT + 4, ACCESS, 4, {xor eax, eax}, {mov dword [SPOT], 0}, {bound eax, [SPOT]}
        WATCH 'les-offset', SPOT, ACCESS, 4, {mov word [SPOT + 4], DATA32}, {les ebx, [SPOT]}
        WATCH 'les-selector', SPOT + 4, ACCESS, 2, {mov word [SPOT + 4], DATA32}, {les ebx, [SPOT]}
        WATCH 'sgdt-base', SPOT + 2, WRITE, 4, {sgdt [SPOT]}
        WATCH 'sidt-limit', SPOT, WRITE, 2, {sidt [SPOT]}
        WATCH 'mov-sreg', SPOT, WRITE, 2, {mov [SPOT], ds}
        WATCH 'mov-sreg-second', SPOT + 2, WRITE, 2, {mov [SPOT], ds}
        WATCH 'sldt', SPOT, WRITE, 2, {sldt [SPOT]}
        WATCH 'smsw', SPOT, WRITE, 2, {smsw [SPOT]}
        WATCH 'pop-memory', SPOT, WRITE, 4, {push eax}, {pop dword [SPOT]}
        WATCH 'push-memory', SPOT, ACCESS, 4, {push dword [SPOT]}
        WATCH 'setcc', SPOT, WRITE, 1, {setz [SPOT]}
        WATCH 'movzx', SPOT, ACCESS, 1, {movzx ebx, byte [SPOT]}
        WATCH 'cmov-false', SPOT, ACCESS, 4, {or eax, eax}, {cmovz ebx, [SPOT]}
        WATCH 'shl-0', SPOT, WRITE, 4, {mov cl, 0}, {shl dword [SPOT], cl}
        WATCH 'shld', SPOT, WRITE, 4, {shld [SPOT], eax, 3}
        WATCH 'moffs', SPOT, WRITE, 4, {mov [dword SPOT], eax}
        WATCH 'movs-to', SPOT, WRITE, 4, {mov esi, SPOT - 0x40}, {mov edi, SPOT}, {movsd}
        WATCH 'movs-from', SPOT, ACCESS, 4, {mov esi, SPOT}, {mov edi, SPOT - 0x40}, {movsd}
        WATCH 'cmps-second', SPOT, ACCESS, 1, {mov esi, SPOT - 0x40}, {mov edi, SPOT}, {cmpsb}
        WATCH 'scas', SPOT, ACCESS, 2, {mov edi, SPOT - 1}, {scasw}
        WATCH 'rep-stos-none', SPOT, WRITE, 4, {xor ecx, ecx}, {mov edi, SPOT}, {rep stosd}
; ----- x87, MMX and SSE
        WATCH 'fld-64-last', SPOT + 4, ACCESS, 4, {fld qword [SPOT]}
        WATCH 'fst-64', SPOT + 4, WRITE, 4, {fld1}, {fst qword [SPOT]}
        WATCH 'fstp-80-last', SPOT + 8, WRITE, 2, {fld1}, {fstp tword [SPOT]}
        WATCH 'fstp-80-above', SPOT + 10, WRITE, 2, {fld1}, {fstp tword [SPOT]}
        WATCH 'fistp-16', SPOT, WRITE, 4, {fld1}, {fistp word [SPOT]}
        WATCH 'fnstcw', SPOT, WRITE, 4, {fnstcw [SPOT]}
        WATCH 'fnstsw-above', SPOT + 2, WRITE, 2, {fnstsw [SPOT]}
        WATCH 'fnstenv-last', SPOT + 24, WRITE, 4, {fnstenv [SPOT]}
        WATCH 'fnstenv-above', SPOT + 28, WRITE, 4, {fnstenv [SPOT]}
        WATCH 'fnsave-last', SPOT + 104, WRITE, 4, {fnsave [SPOT]}
        WATCH 'fldenv', SPOT + 8, ACCESS, 4, {fnstenv [SPOT]}, {nop}, {fldenv [SPOT]}
        WATCH 'fxsave-xmm7', SPOT + 0x114, WRITE, 4, {fxsave [SPOT]}
        WATCH 'movq-mmx', SPOT + 4, WRITE, 4, {movq [SPOT], mm0}
        WATCH 'movd-above', SPOT + 4, WRITE, 4, {movd [SPOT], mm0}
        WATCH 'movups-last', SPOT + 12, WRITE, 4, {movups [SPOT], xmm0}
        WATCH 'movaps-read', SPOT + 12, ACCESS, 4, {movaps xmm0, [SPOT]}
        WATCH 'movss', SPOT, WRITE, 4, {movss [SPOT], xmm0}
        WATCH 'movhps', SPOT + 4, WRITE, 4, {movhps [SPOT], xmm0}
        WATCH 'stmxcsr', SPOT, WRITE, 4, {stmxcsr [SPOT]}
; ----- what reaches no data
        WATCH 'lea', SPOT, ACCESS, 4, {lea ebx, [SPOT]}
        WATCH 'nop-memory', SPOT, ACCESS, 4, {nop dword [SPOT]}
        WATCH 'prefetch', SPOT, ACCESS, 4, {prefetchnta [SPOT]}
        WATCH 'invlpg', SPOT, ACCESS, 4, {invlpg [SPOT]}
; ----- stacks
        WATCH 'push', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {push eax}, {mov esp, ebx}
        WATCH 'push-16', TOP - 2, WRITE, 2, {mov ebx, esp}, {mov esp, TOP}, {push ax}, {mov esp, ebx}
        WATCH 'pushad-last', TOP - 32, WRITE, 4, {mov [HELD32], esp}, {mov esp, TOP}, {pushad}, {mov esp, [HELD32]}
        WATCH 'enter-frame', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {enter 8, 0}, {mov esp, ebx}
        WATCH 'enter-locals', TOP - 8, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {enter 8, 0}, {mov esp, ebx}
        WATCH 'enter-level', TOP - 8, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {mov ebp, TOP + 0x40}, {enter 8, 2}, {mov esp, ebx}
        WATCH 'call', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {call back}, {mov esp, ebx}
        WATCH 'call-far', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {call CODE32:F(.in_2)}, {.in_2: mov esp, ebx}
        WATCH 'pushfd', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {pushfd}, {mov esp, ebx}
        mov dword [VALUE], DATA32
; ----- MOV SS and POP SS hold the trap off one instruction
        WATCH 'mov-ss', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, [SPOT]}, {nop}, {nop}
        WATCH 'mov-ss-register', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, ebx}, {mov [SPOT], eax}, {nop}
        WATCH 'mov-ss-twice', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, [SPOT]}, {mov ss, ebx}, {nop}
        WATCH 'pop-ss', SPOT, ACCESS, 2, {mov ebx, esp}, {mov esp, SPOT}, {pop ss}, {mov esp, ebx}, {nop}
        WATCH 'mov-ss-then', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, [SPOT]}, {mov ebx, [SPOT]}, {nop}
        WATCH 'mov-ds', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ds, [SPOT]}, {nop}
        WATCH 'mov-ss-int', SPOT, ACCESS, 2, {mov ss, [SPOT]}, {int 0x30}, {nop}
        WATCH 'mov-ss-lss', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, [SPOT]}, {mov ss, [SPOT]}, {nop}
        WATCH_FAULT 'mov-ss-page', SPOT, ACCESS, 2, {mov ebx, SMALL}, {mov es, ebx}, {mov ss, [SPOT]}, {mov eax, [es:0x20]}
        WATCH_FAULT 'mov-ss-fault', SPOT, ACCESS, 2, {mov ebx, DATA32}, {mov ss, [SPOT]}, {ud2}
        WATCH 'sti', SPOT, WRITE, 4, {sti}, {mov [SPOT], eax}, {cli}
        mov dword [VALUE], 0x01020304
; ----- instructions that fault behind the access
        WATCH_FAULT 'div-by-0', SPOT, ACCESS, 4, {xor edx, edx}, {sub byte [SPOT - 0x20], 0}, {mov ecx, 0}, {mov esi, [SPOT + 0x10]}, {idiv ecx}
        WATCH_FAULT 'div-overflows', SPOT, ACCESS, 4, {mov edx, 0x7FFFFFFF}, {div dword [SPOT]}
        WATCH_FAULT 'bound-range', SPOT, ACCESS, 4, {mov eax, 0x7FFFFFFF}, {bound eax, [SPOT]}
        WATCH_FAULT 'les-selector-fault', SPOT, ACCESS, 4, {les ebx, [SPOT]}
        WATCH_FAULT 'mov-sreg-fault', SPOT, ACCESS, 2, {mov es, [SPOT]}
        WATCH_FAULT 'push-no-stack', SPOT, ACCESS, 4, {mov ebx, SMALL}, {mov es, ebx}, {mov esi, SPOT}, {mov edi, 0x20}, {movsd}
        WATCH_FAULT 'mov-write-fault', SPOT, WRITE, 4, {mov ebx, SMALL}, {mov es, ebx}, {mov [es:0x20], eax}
        WATCH_FAULT 'jmp-far-fault', SPOT, ACCESS, 4, {jmp far [SPOT]}
        WATCH_FAULT 'lgdt-read', SPOT, ACCESS, 4, {sgdt [SPOT]}, {nop}, {lgdt [SPOT]}
; ----- frames, and tables
        WATCH 'int-frame', TOP - 12, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {int 0x30}, {mov esp, ebx}
        WATCH 'int-frame-eflags', TOP - 4, WRITE, 4, {mov ebx, esp}, {mov esp, TOP}, {int 0x30}, {mov esp, ebx}
; ----- with others
        call mark32
        db 10, 'two-at-once', 0
        call preset
        DR 0, SPOT
        DR 1, SPOT + 2
        DR 2, SPOT + 3
        mov eax, 0x15 | WRITE << 16 | ACCESS << 20 | WRITE << 24
        mov dr7, eax
        mov [SPOT], ax
        mov [SPOT + 2], ax
        mov ebx, [SPOT]
        nop
        call outcome
        call mark32
        db 10, 'not-enabled', 0
        call preset
        DR 0, SPOT
        DR 1, SPOT
        mov eax, 0x304 | WRITE << 16 | WRITE << 20 ; L1, LE, GE
        mov dr7, eax
        mov [SPOT], al
        nop
        mov eax, 0x300 | WRITE << 16
        mov dr7, eax
        mov [SPOT], al
        nop
        call outcome
        call mark32
        db 10, 'with-step', 0
        call preset
        DR 0, SPOT
        mov eax, 1 | WRITE << 16
        mov dr7, eax
        push dword 0x102
        popfd
        mov [SPOT], al
        nop
        push dword 2
        popfd
        call outcome
        call mark32
        db 10, 'rf-does-not-matter', 0
        call preset
        DR 0, SPOT
        mov eax, 1 | WRITE << 16
        mov dr7, eax
        push dword 0x10002
        push dword CODE32
        push dword F(.with_rf)
        iretd
.with_rf:
        mov [SPOT], al
        nop
        call outcome
        TEST 32, 'end'
        mov al, 0
        jmp finish32

back:   ret

preset:
        fninit
        cld
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov edi, SPOT - 0x40
        mov ecx, 0x200 / 4
        mov eax, 0x01020304
        rep stosd
        mov edi, TOP - 0x80
        mov ecx, 0x100 / 4
        rep stosd
        mov eax, [VALUE]
        mov [SPOT], eax
        mov eax, 0xFFFF0FF0
        mov dr6, eax
        ret
outcome:
        xor eax, eax
        mov dr7, eax
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov dword [RESUME], 0
        cld
        call mark32
        db ' =', 0
        mov eax, dr6
        jmp hex8_32
TABLE_REGISTERS32
        align 8
GDT32
SMALL           equ $ - gdt
        SEGMENT SPOT, 0xF, 0x93, 4
gdt_end:
RESET_VECTOR start
