; Task switches beside the debug registers, a line a check: what of DR7 a new task keeps, its T bit, TF and RF, breakpoints on its
; first instruction and on the TSSs that the switch reads and writes, by far JMP, far CALL, a task gate of the IDT, and IRET back
; (SDM vol. 3A, 7.2.1 and 7.3; vol. 3B, 17.2.4, 17.3.1 and 17.3.1.5). ROM: QEMU -bios, v2e run --firmware. A check prints its name,
; the frame of each exception, and =DR7:DR6 in the task and =DR7:DR6:TR behind it. Ends with debug exit 0.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8000
TSS_MAIN        equ 0xA000
TSS_TASK        equ 0xA100
TASK_STACK      equ 0x6000
SPOT            equ 0x20040
DR0_IS          equ 0x610               ; dd: for the check
DR7_IS          equ 0x614
FLAGS_ARE       equ 0x618               ; dd: EFLAGS of the task
T_IS            equ 0x61C               ; dd: its T bit

; %1 name, %2 DR0, %3 DR7, %4 the task's EFLAGS, %5 its T bit
%macro CASE 5
  %assign way 0
  %rep 3
        call mark32
        db 10, %1, '-', '0' + way, 0
        mov dword [DR0_IS], %2
        mov dword [DR7_IS], %3
        mov dword [FLAGS_ARE], %4
        mov dword [T_IS], %5
        call preset
    %if way = 0
        jmp TASK_SEL:0
    %elif way = 1
        call TASK_SEL:0
    %else
        int 0x31
    %endif
        call outcome
    %assign way way + 1
  %endrep
%endmacro

ROM32
PROTECTED_START
        FRESH_TSS TSS_MAIN, 0x200, 0x6800, 0x88
        mov eax, MAIN_SEL
        ltr ax
        mov dword [IDT + 0x31 * 8], TASK_SEL << 16
        mov dword [IDT + 0x31 * 8 + 4], 0x8500
        CASE 'plain', 0, 0x400, 2, 0
        CASE 'local', SPOT, 0x101 | 1 << 16, 2, 0
        CASE 'global', SPOT, 0x202 | 1 << 16, 2, 0
        CASE 'both', SPOT, 0x303 | 1 << 16, 2, 0
        CASE 'local-of-others', SPOT, 0x154, 2, 0
        CASE 't', 0, 0x400, 2, 1
        CASE 't-global', SPOT, 2 | 1 << 16, 2, 1
        CASE 'tf', 0, 0x400, 0x102, 0
        CASE 'tf-t', 0, 0x400, 0x102, 1
        CASE 'rf', F(task), 2, 0x10002, 0
        CASE 'rf-t', F(task), 2, 0x10002, 1
        CASE 'tf-global', SPOT, 2 | 1 << 16, 0x102, 0
        CASE 'nt-in-flags', 0, 0x400, 0x4002, 0
        TEST 32, 'end'
        mov al, 0
        jmp finish32

; The task: goes back by IRET where it is nested, else by a far JMP
task:   mov [SPOT], al
        nop
        push dword 2
        popfd
        call show
        cmp word [TSS_TASK], 0
        je .jump
        pushfd
        or dword [esp], 0x4000
        popfd
        iretd
.jump:  jmp MAIN_SEL:0

preset:
        cld
        mov edi, TSS_TASK
        mov ecx, 0x68 / 4
        xor eax, eax
        rep stosd
        mov dword [TSS_TASK + 0x20], F(task)
        mov eax, [FLAGS_ARE]
        mov [TSS_TASK + 0x24], eax
        mov dword [TSS_TASK + 0x38], TASK_STACK
        mov eax, DATA32
        mov [TSS_TASK + 0x48], eax
        mov [TSS_TASK + 0x50], eax
        mov [TSS_TASK + 0x54], eax
        mov dword [TSS_TASK + 0x4C], CODE32
        mov eax, [T_IS]
        mov [TSS_TASK + 0x64], ax
        mov word [TSS_TASK + 0x66], 0x88
        and byte [GDT + TASK_SEL + 5], ~2
        or byte [GDT + MAIN_SEL + 5], 2
        mov eax, 0xFFFF0FF0
        mov dr6, eax
        mov eax, [DR0_IS]
        mov dr0, eax
        mov eax, [DR7_IS]
        mov dr7, eax
        ret
show:
        call mark32
        db ' =', 0
        mov eax, dr7
        call hex8_32
        mov al, ':'
        out 0xE9, al
        mov eax, dr6
        jmp hex8_32
outcome:
        call show
        mov al, ':'
        out 0xE9, al
        str eax
        call hex4_32
        xor eax, eax
        mov dr7, eax
        push dword 2
        popfd
        ret
TABLE_REGISTERS32
        align 8
GDT32
MAIN_SEL        equ $ - gdt
        SEGMENT TSS_MAIN, 0x87, 0x89, 0
TASK_SEL        equ $ - gdt
        SEGMENT TSS_TASK, 0x67, 0x89, 0
gdt_end:
RESET_VECTOR start
