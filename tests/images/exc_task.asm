; Exceptions and interrupts in 32-bit protected mode that involve tasks: CALL, JMP, INT and IRET between tasks, task
; gates with error codes, #TS, every way into #DF, and a triple fault at the end. ROM: QEMU -bios with -no-reboot,
; v2e run --firmware. Output as exc_frames32.inc says; the machine shuts down instead of a debug exit.
%include "guest.inc"
%include "exc_frames32.inc"

IDT             equ 0x8F90              ; vectors 0-13 in page 8, the others in page 9
TSS_MAIN        equ 0xA000
TSS_A           equ 0xA100
TSS_FAULT       equ 0xA200              ; for exceptions with an error code
TSS_EIP         equ 0x20
TSS_SS          equ 0x50
TSS_DS          equ 0x54
TSS_CS          equ 0x4C
RING0_STACK     equ 0x6800
USER_STACK      equ 0x6000
PAGE_DIR        equ 0x10000
PAGE_TABLE      equ 0x11000

ROM32
PROTECTED_START
        mov edi, TSS_MAIN
        mov ecx, 0x300 / 4
        xor eax, eax
        rep stosd
        mov dword [TSS_MAIN + 4], RING0_STACK
        mov dword [TSS_MAIN + 8], DATA32
        mov eax, F(task_a)
        mov edi, TSS_A
        mov edx, 0x5000
        call fill_tss
        mov eax, F(task_fault)
        mov edi, TSS_FAULT
        mov edx, 0x5800
        call fill_tss
        mov eax, MAIN
        ltr ax

        TEST 32, 'call-task'
        call TASK_A:0
        call print_task
        TEST 32, 'call-task-again'      ; goes on behind its IRET
        call TASK_A:0
        call print_task
        clts
        TEST 32, 'jmp-task'
        mov dword [jumped], 1
        jmp TASK_A:0
        call print_task
        clts
        SET_GATE 0x31, gdt, TASK_A, 0x85        ; a task gate's offset means nothing
        TEST 32, 'int-task-gate'
        int 0x31
        call print_task
        clts
        FAULTS 'gp-call-busy', call MAIN:0
        FAULTS 'np-call-absent', call TASK_ABSENT:0
        FAULTS 'ts-limit', call TASK_SHORT:0
        FAULTS 'gp-task-gate-beyond-gdt', call TASK_GATE_BAD:0
        SET_GATE 0x32, gdt, TASK_ABSENT, 0x85
        FAULTS 'np-int-task-gate-tss', int 0x32
        SET_GATE 0x33, gdt, DATA32, 0x85
        FAULTS 'gp-int-task-gate-data', int 0x33
        SET_GATE 0x34, gdt, TASK_A, 0x05
        FAULTS 'np-int-task-gate', int 0x34
        SET_GATE 13, gdt, TASK_FAULT, 0x85
        mov eax, 0x1238
        FAULTS 'gp-task-gate', mov ds, eax
        call print_task
        SET_GATE 13, STUB(13), CODE32, 0x8E
        clts

; #TS with the stack of ring 0 at fault, so that only a task can handle it; the task repairs it and the INT succeeds
        SET_GATE 10, gdt, TASK_FAULT, 0x85
        SET_GATE 0x30, STUB(0x30), CODE32, 0xEE
        mov dword [TSS_MAIN + 8], UDATA32
        push dword UDATA32
        push dword USER_STACK
        push dword 0x0002
        push dword UCODE32
        push dword F(.user)
        iretd
.user:  mov eax, UDATA32
        mov ds, eax
        TEST 32, 'ts-ss0-dpl'
        mov byte [repair], 1
        int 0x30
        TO_RING0 32
        clts
        SET_GATE 10, STUB(10), CODE32, 0x8E

; segments of the new task at fault: the exception is the new task's
%macro BAD_TASK 4                       ; name, TSS field, bad selector, good selector
        mov dword [TSS_A + %2], %3
        mov dword [TSS_A + TSS_EIP], F(task_a)
        mov dword [TSS_A + 0x38], 0x5000
        TEST 32, %1
        mov dword [GO_TO], F(%%back)
        call TASK_A:0
%%back: call print_task
        mov dword [TSS_A + %2], %4
        mov eax, MAIN                   ; this task again
        and byte [GDT + MAIN + 5], ~2
        and byte [GDT + TASK_A + 5], ~2
        ltr ax
        clts
%endmacro
        BAD_TASK 'ts-new-ds', TSS_DS, 0x1238, DATA32
        BAD_TASK 'np-new-ds', TSS_DS, DATA_ABSENT, DATA32

; ----- double faults, handled by a task
        SET_GATE 8, gdt, TASK_FAULT, 0x85
        SET_GATE 0, STUB(0), CODE32, 0x0E
        xor ecx, ecx
        FAULTS 'df-de-np', div ecx
        SET_GATE 0, STUB(0), 0, 0x8E
        FAULTS 'df-de-gp', div ecx
        SET_GATE 0, STUB(0), CODE32, 0x8E
        SET_GATE 13, STUB(13), CODE32, 0x0E
        mov eax, 0x1238
        FAULTS 'df-gp-np', mov ds, eax
        SET_GATE 13, STUB(13), CODE32, 0x8E
        SET_GATE 11, STUB(11), CODE32, 0x0E
        mov eax, DATA_ABSENT
        FAULTS 'df-np-np', mov ds, eax
        FAULTS 'df-ss-np-not', mov ss, eax      ; #SS has its gate: no double fault
        SET_GATE 0x35, STUB(0x35), CODE32, 0x0E
        FAULTS 'df-int-np-np', int 0x35
        SET_GATE 11, STUB(11), CODE32, 0x8E
        FAULTS 'df-int-np-not', int 0x35

; with paging: 4 KiB pages, first 4 MiB to themselves
        mov edi, PAGE_DIR
        mov ecx, 1024
        xor eax, eax
        rep stosd
        mov dword [PAGE_DIR], PAGE_TABLE | 7
        mov edi, PAGE_TABLE
        mov eax, 7
        mov ecx, 1024
.pte:   stosd
        add eax, 0x1000
        loop .pte
        mov dword [PAGE_TABLE + 0x300 * 4], 0
        mov eax, PAGE_DIR
        mov [TSS_A + 0x1C], eax
        mov [TSS_FAULT + 0x1C], eax
        mov [TSS_MAIN + 0x1C], eax
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        SET_GATE 14, STUB(14), CODE32, 0x0E
        FAULTS 'df-pf-np', mov eax, [0x300010]
        SET_GATE 14, STUB(14), CODE32, 0x8E
        mov dword [PAGE_TABLE + 9 * 4], 0       ; gates from 14 on are out of reach
        invlpg [0x9000]
        FAULTS 'df-pf-pf', mov eax, [0x300020]
        mov dword [PAGE_TABLE + 9 * 4], 0x9007
        invlpg [0x9000]
        TEST 32, 'df-push-pf-pf'        ; the stack is absent: the fault in pushing the frame repeats itself
        mov dword [RESUME], F(.stack)
        mov esp, 0x301000
        push eax
.stack: mov esp, STACK

; ----- triple fault: no gate for #DF
        SET_GATE 8, gdt, TASK_FAULT, 0x05
        SET_GATE 13, STUB(13), CODE32, 0x0E
        TEST 32, 'triple'
        mov al, 10
        out 0xE9, al
        mov eax, 0x1238
        mov ds, eax
        TEST 32, 'survived'
        mov al, 1
        jmp finish32

; ----- tasks
task_a:
        call print_task
        cmp dword [jumped], 0
        jne .jump
        iretd
        jmp task_a
.jump:  mov dword [jumped], 0
        jmp MAIN:0
        jmp task_a

; Exceptions with an error code. Goes back to [RESUME] in the main task, or to the same place if [repair] is set,
; after repairing the main task's SS0.
task_fault:
        pop edx
        call mark32
        db ' fault-task code=', 0
        mov eax, edx
        call hex8_32
        call mark32
        db ' from=', 0
        mov eax, [TSS_MAIN + TSS_CS]
        call hex4_32
        mov al, '.'
        out 0xE9, al
        mov eax, [TSS_MAIN + TSS_EIP]
        call hex8_32
        call print_task
        cmp byte [repair], 0
        je .resume
        mov byte [repair], 0
        mov dword [TSS_MAIN + 8], DATA32
        jmp .back
.resume:
        xor eax, eax
        xchg eax, [RESUME]
        mov [TSS_MAIN + TSS_EIP], eax
.back:  iretd
        jmp task_fault

; EDI TSS, EAX entry, EDX stack
fill_tss:
        mov [edi + TSS_EIP], eax
        mov dword [edi + 0x24], 2
        mov [edi + 0x38], edx
        mov eax, DATA32
        mov [edi + 0x48], eax           ; ES
        mov dword [edi + TSS_CS], CODE32
        mov [edi + TSS_SS], eax
        mov [edi + TSS_DS], eax
        mov [edi + 0x58], eax
        mov [edi + 0x5C], eax
        ret

print_task:                             ; TR, its back link, EFLAGS.NT, CR0.TS, types of main and A
        push eax
        push ebx
        pushfd
        call mark32
        db ' tr=', 0
        str eax
        call hex4_32
        mov ebx, [GDT + eax + 2]        ; base (below 1000000h)
        and ebx, 0xFFFFFF
        call mark32
        db ' link=', 0
        mov ax, [ebx]
        call hex4_32
        call mark32
        db ' nt=', 0
        mov eax, [esp]
        shr eax, 14
        and eax, 1
        call hex2_32
        call mark32
        db ' ts=', 0
        mov eax, cr0
        shr eax, 3
        and eax, 1
        call hex2_32
        call mark32
        db ' main.a=', 0
        mov al, [GDT + MAIN + 5]
        call hex2_32
        mov al, '.'
        out 0xE9, al
        mov al, [GDT + TASK_A + 5]
        call hex2_32
        popfd
        pop ebx
        pop eax
        ret

jumped          equ 0x610
repair          equ 0x614

        align 8
GDT32
GDT32_USER
DATA_ABSENT     equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x13, 0xC
MAIN            equ $ - gdt
        SEGMENT TSS_MAIN, 0x67, 0x89, 0
TASK_A          equ $ - gdt
        SEGMENT TSS_A, 0x67, 0x89, 0
TASK_FAULT      equ $ - gdt
        SEGMENT TSS_FAULT, 0x67, 0x89, 0
TASK_ABSENT     equ $ - gdt
        SEGMENT TSS_A, 0x67, 0x09, 0
TASK_SHORT      equ $ - gdt
        SEGMENT TSS_A, 0x66, 0x89, 0
TASK_GATE_BAD   equ $ - gdt
        dw 0, 0x1238, 0x8500, 0
gdt_end:
TABLE_REGISTERS32
RESET_VECTOR start
