; Debug exceptions, a line a check: I/O breakpoints of DR0 to DR3 for every form of IN and OUT, data breakpoints and single
; steps in repeated string instructions, of PAUSE and to an execution breakpoint, CR4.DE with DR4 and DR5, what stays in DR6
; (SDM vol. 3B, 18.2 and 18.3). ROM: QEMU -bios, v2e run --firmware.
; A check prints its name, the frame of each exception, and =ESI:EDI:ECX:DR6. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
BUFFER          equ 0x20000
PORT            equ 0x84                ; a register of the DMA page chip that no channel uses
CR4_DE          equ 8

; %1 name, %2 the instruction. A trap goes on behind it.
%macro CHECK 2+
        call mark32
        db 10, %1, 0
        call preset
        %2
        nop
        call outcome
%endmacro
; The same, of a fault: go on behind it.
%macro CHECK_FAULT 2+
        call mark32
        db 10, %1, 0
        call preset
        mov dword [RESUME], F(%%after)
        %2
%%after:
        mov dword [RESUME], 0
        call outcome
%endmacro
; %1 name, %2 the instructions, in braces, all with TF set.
%macro STEPPED 2-*
        call mark32
        db 10, %1, 0
        call preset
        push dword 0x102
        popfd
  %rep %0 - 1
    %rotate 1
        %1
  %endrep
        push dword 2
        popfd
        call outcome
%endmacro
; %1 name, %2 DR7, %3 the number of the debug register that has the address of what follows the one instruction that is
; executed with TF set, in a code segment with base %4 (0 or ROM): linear, or with %5 its offset there
%macro STEPPED_TO 5
        DR %3, %5 * (%%second - rom) + (1 - %5) * F(%%second)
        DR 7, %2
        call mark32
        db 10, %1, 0
        call preset
        mov dword [GO_TO], F(%%after)
        push dword 0x102
        push dword (%4) ? BASED : CODE32
        push dword F(%%first) - (%4)
        iretd
%%first:
        nop
%%second:
        nop
%%after:
        call outcome
        DR 7, 0
%endmacro
%macro DR 2                             ; %1 number, %2 value; keeps EAX
        push eax
        mov eax, %2
        mov dr%1, eax
        pop eax
%endmacro
; DR7 fields of breakpoint %1: enabled locally, R/W %2, LEN %3 (bytes - 1)
%define LOCAL(n, rw, len) ((1 << 2 * (n)) | ((rw) << (16 + 4 * (n))) | ((len) << (18 + 4 * (n))))
%define GLOBAL(n, rw, len) ((2 << 2 * (n)) | ((rw) << (16 + 4 * (n))) | ((len) << (18 + 4 * (n))))
EXECUTE         equ 0
WRITE           equ 1
IO              equ 2
ACCESS          equ 3

ROM32
PROTECTED_START
        mov eax, CR4_DE
        mov cr4, eax

; ----- every form, against one port
        DR 0, PORT
        DR 7, LOCAL(0, IO, 0)
        CHECK 'in-imm-byte', in al, PORT
        CHECK 'in-imm-byte-below', in al, PORT - 1
        CHECK 'in-imm-byte-above', in al, PORT + 1
        CHECK 'in-imm-word', in ax, PORT
        CHECK 'in-imm-word-into', in ax, PORT - 1
        CHECK 'in-imm-word-below', in ax, PORT - 2
        CHECK 'in-imm-dword-into', in eax, PORT - 3
        CHECK 'in-imm-dword-below', in eax, PORT - 4
        CHECK 'in-dx-byte', in al, dx
        CHECK 'in-dx-word', in ax, dx
        CHECK 'in-dx-dword', in eax, dx
        CHECK 'out-imm-byte', out PORT, al
        CHECK 'out-imm-byte-above', out PORT + 1, al
        CHECK 'out-imm-word-into', out PORT - 1, ax
        CHECK 'out-imm-dword-into', out PORT - 3, eax
        CHECK 'out-imm-dword-below', out PORT - 4, eax
        CHECK 'out-dx-byte', out dx, al
        CHECK 'out-dx-word', out dx, ax
        CHECK 'out-dx-dword', out dx, eax
        CHECK 'insb', insb
        CHECK 'insw', insw
        CHECK 'insd', insd
        CHECK 'outsb', outsb
        CHECK 'outsw', outsw
        CHECK 'outsd', outsd
        CHECK 'rep-insb', rep insb
        CHECK 'rep-insd', rep insd
        CHECK 'rep-outsb', rep outsb
        CHECK 'rep-outsw', rep outsw
        CHECK 'a16-rep-insb', a16 rep insb
        CHECK 'rep-insb-none', {xor ecx, ecx}
        CHECK 'memory-at-port', mov al, [PORT]

; ----- lengths; DR0's low bits do not count
        DR 7, LOCAL(0, IO, 1)
        DR 0, PORT + 1
        CHECK 'two-first', in al, PORT
        CHECK 'two-second', in al, PORT + 1
        CHECK 'two-below', in al, PORT - 1
        CHECK 'two-above', in al, PORT + 2
        DR 7, LOCAL(0, IO, 3)
        DR 0, PORT + 3
        CHECK 'four-first', in al, PORT
        CHECK 'four-last', in al, PORT + 3
        CHECK 'four-below', in al, PORT - 1
        CHECK 'four-above', in al, PORT + 4
        CHECK 'four-dword-into', in eax, PORT - 3

; ----- several, and those that are not enabled
        DR 0, PORT
        DR 1, PORT
        DR 2, PORT + 4
        DR 3, PORT + 5
        DR 7, LOCAL(0, IO, 0) | GLOBAL(1, IO, 0) | LOCAL(2, IO, 0) | GLOBAL(3, IO, 0)
        CHECK 'both-of-two', in al, PORT
        CHECK 'the-third', in al, PORT + 4
        CHECK 'the-fourth', in al, PORT + 5
        CHECK 'third-and-fourth', in ax, PORT + 4
        DR 7, LOCAL(1, IO, 0)
        CHECK 'second-alone', in al, PORT
        DR 7, 0
        CHECK 'none-enabled', in al, PORT

; ----- what stays in DR6
        DR 0, PORT
        DR 1, PORT + 4
        DR 7, LOCAL(0, IO, 0) | LOCAL(1, IO, 0)
        call mark32
        db 10, 'dr6-of-two-traps', 0
        call preset
        in al, PORT
        nop
        in al, PORT + 4
        nop
        call outcome
        DR 7, 0

; ----- without CR4.DE
        xor eax, eax
        mov cr4, eax
        DR 7, LOCAL(0, IO, 0)
        CHECK 'no-de-in', in al, PORT
        CHECK 'no-de-out', out PORT, al
        CHECK_FAULT 'no-de-read-dr4', mov eax, dr4
        CHECK_FAULT 'no-de-read-dr5', mov eax, dr5
        DR 7, 0
        call mark32
        db 10, 'no-de-write-dr4', 0
        mov eax, 0xFFFF4FF1
        db 0x0F, 0x23, 0xE0             ; mov dr4, eax
        call outcome
        call mark32
        db 10, 'no-de-write-dr5', 0
        mov eax, 0x00000600
        db 0x0F, 0x23, 0xE8             ; mov dr5, eax
        mov eax, dr7
        mov esi, eax
        call outcome
        mov eax, CR4_DE
        mov cr4, eax
        CHECK_FAULT 'de-read-dr4', mov eax, dr4
        CHECK_FAULT 'de-read-dr5', mov eax, dr5
        CHECK_FAULT 'de-write-dr4', {db 0x0F, 0x23, 0xE0}
        CHECK_FAULT 'de-write-dr5', {db 0x0F, 0x23, 0xE8}

; ----- data breakpoints in repeated instructions: behind the iteration
        DR 0, BUFFER + 0x41
        DR 7, LOCAL(0, WRITE, 0)
        CHECK 'rep-stosb-second', rep stosb
        CHECK 'rep-movsb-second', rep movsb
        CHECK 'rep-lodsb-not-written', rep lodsb
        DR 0, BUFFER + 1
        DR 7, LOCAL(0, ACCESS, 0)
        CHECK 'rep-lodsb-second', rep lodsb
        CHECK 'rep-outsb-second', rep outsb
        DR 0, BUFFER + 0x42
        CHECK 'rep-insb-last', rep insb
        CHECK 'repne-scasb-last', repne scasb
        DR 0, BUFFER + 0x44
        DR 7, LOCAL(0, ACCESS, 3)
        CHECK 'rep-stosd-second', rep stosd
        DR 7, 0

; ----- single steps
        STEPPED 'step-nops', {nop}, {nop}
        STEPPED 'step-rep-movsb', {rep movsb}, {nop}
        STEPPED 'step-rep-stosd', {rep stosd}, {nop}
        STEPPED 'step-rep-insb', {rep insb}, {nop}
        STEPPED 'step-rep-outsb', {rep outsb}, {nop}
        STEPPED 'step-repe-cmpsb', {repe cmpsb}, {nop}
        STEPPED 'step-repne-scasb', {repne scasb}, {nop}
        STEPPED 'step-rep-none', {xor ecx, ecx}, {rep movsb}, {nop}
        STEPPED 'step-mov-ss', {mov eax, ss}, {mov ss, eax}, {nop}, {nop}
        STEPPED 'step-pop-ss', {push ss}, {pop ss}, {nop}, {nop}
        STEPPED 'step-in', {in al, PORT}, {nop}
        DR 0, PORT
        DR 7, LOCAL(0, IO, 0)
        STEPPED 'step-in-io', {in al, PORT}, {nop}
        STEPPED 'step-rep-outsb-io', {rep outsb}, {nop}
        DR 0, BUFFER + 0x41
        DR 7, LOCAL(0, WRITE, 0)
        STEPPED 'step-rep-stosb-data', {rep stosb}, {nop}
        DR 7, 0

; ----- PAUSE is stepped over as any other instruction, and ends RF
        STEPPED 'step-pause', {pause}, {nop}
        STEPPED 'step-pauses', {pause}, {pause}, {nop}
        STEPPED 'step-pause-loop', {dec ecx}, {pause}, {jnz $ - 3}, {nop}
        STEPPED 'step-pause-prefixes', {o16 pause}, {db 0x2E}, {pause}, {nop}
        STEPPED 'step-mov-ss-pause', {mov eax, ss}, {mov ss, eax}, {pause}, {nop}
        DR 0, F(.pause)
        DR 1, F(.behind)
        DR 7, LOCAL(0, EXECUTE, 0) | LOCAL(1, EXECUTE, 0)
        call mark32
        db 10, 'breakpoint-behind-pause', 0
        call preset
        mov dword [GO_TO], F(.after)
        push dword 0x10002              ; RF
        push dword CODE32
        push dword F(.pause)
        iretd
.pause: pause
.behind:
        nop
.after: call outcome
        DR 7, 0

; ----- execution breakpoints where a single step ends, enabled and not
%assign base 0
%rep 2
        STEPPED_TO {'step-to-breakpoint', '-', '0' + (base > 0)}, LOCAL(0, EXECUTE, 0), 0, base, 0
        STEPPED_TO {'step-to-global-breakpoint', '-', '0' + (base > 0)}, GLOBAL(3, EXECUTE, 0), 3, base, 0
        STEPPED_TO {'step-to-no-breakpoint', '-', '0' + (base > 0)}, 0, 0, base, 0
        STEPPED_TO {'step-to-other-breakpoint', '-', '0' + (base > 0)}, LOCAL(1, EXECUTE, 0), 2, base, 0
        STEPPED_TO {'step-to-data-breakpoint', '-', '0' + (base > 0)}, LOCAL(0, WRITE, 0), 0, base, 0
        STEPPED_TO {'step-to-breakpoint-at-offset', '-', '0' + (base > 0)}, LOCAL(0, EXECUTE, 0), 0, base, 1
        STEPPED_TO {'step-to-no-breakpoint-at-offset', '-', '0' + (base > 0)}, 0, 0, base, 1
  %assign base ROM
%endrep
        TEST 32, 'end'
        mov al, 0
        jmp finish32

preset:
        mov edi, 0xFFFF0FF0
        mov dr6, edi
        mov edi, BUFFER + 0x40
        mov esi, BUFFER
        mov ecx, 3
        mov edx, PORT
        mov eax, 0
        mov [esi], eax
        mov [edi], eax
        mov dword [edi], 0x01010101
        mov dword [esi], 0x01010101
        ret
outcome:
        pushfd
        pushad
        mov al, ' '
        out 0xE9, al
        mov al, '='
        out 0xE9, al
        mov eax, esi
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, edi
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, ecx
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, dr6
        call hex8_32
        popad
        popfd
        ret

        align 8
GDT32
BASED           equ $ - gdt
        SEGMENT ROM, 0xFFFFF, 0x9B, 0xC
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
