; EFLAGS.RF and execution breakpoints of DR0 to DR3 in real mode, where the code segment has a base, a line a check: what
; IRETD goes to, with RF or without, and where the breakpoint is met behind it (SDM vol. 3B, 17.2.1 and 17.3.1.1).
; ROM: QEMU -bios, v2e run --firmware.
; A check prints its name, and for each exception D (#DB), G (#GP) or 0 (#DE), how far the address it saves is behind the
; first instruction, and DR6's low four bits of #DB. Ends with debug exit 0.
%include "guest.inc"
org 0
rom:

STACK           equ 0x7000
RF              equ 0x10000

GUEST_SERVICES 16
bits 16
; %1 name, %2 EFLAGS; then the code, of which `on` is under DR0 and `on2` under DR1
%macro CHECK 2
  %push check
        call mark16
        db 10, %1, 0
        mov word [cs_of_check], %$first
        mov word [after], %$after
        mov sp, STACK
        mov eax, ROM + %$on
        mov dr0, eax
  %ifdef TWO
        mov eax, ROM + %$on2
  %else
        mov eax, ROM + rom              ; nothing goes there
  %endif
        mov dr1, eax
        mov eax, 0x40A
        mov dr7, eax
        mov cx, 3
        xor si, si
        mov di, %$on
        push dword %2
        push dword ROM >> 4
        push dword %$first
        iretd
  %$first:
%endmacro
%macro DONE 0
        nop
  %$after:
        call outcome
  %pop check
%endmacro
cs_of_check     equ 0x500
after           equ 0x502

start:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, STACK
        mov word [0 * 4], zero_divide
        mov word [0 * 4 + 2], ROM >> 4
        mov word [1 * 4], debug
        mov word [1 * 4 + 2], ROM >> 4
        mov word [13 * 4], protection
        mov word [13 * 4 + 2], ROM >> 4
        mov word [0x40 * 4], service
        mov word [0x40 * 4 + 2], ROM >> 4

        CHECK 'self', 2
%$on:   nop
        DONE
        CHECK 'self-rf', RF | 2
%$on:   nop
        DONE
        CHECK 'nop', 2
        nop
%$on:   nop
        DONE
        CHECK 'nop-rf', RF | 2
        nop
%$on:   nop
        DONE
        CHECK 'third-rf', RF | 2
        nop
        nop
%$on:   nop
        DONE
        CHECK 'jmp-rf', RF | 2
        jmp %$on
        nop
%$on:   nop
        DONE
        CHECK 'jmp-near-rf', RF | 2
        jmp near %$on
        nop
%$on:   nop
        DONE
        CHECK 'jcc-taken-rf', RF | 0x42
        jz %$on
        nop
%$on:   nop
        DONE
        CHECK 'jcc-passed-rf', RF | 2
        jz %$after
%$on:   nop
        DONE
        CHECK 'jcxz-rf', RF | 2
        jcxz %$after
%$on:   nop
        DONE
        CHECK 'call-rf', RF | 2
        call %$on
        nop
%$on:   nop
        DONE
        CHECK 'call-register-rf', RF | 2
        call di
        nop
%$on:   nop
        DONE
        CHECK 'jmp-far-rf', RF | 2
        jmp (ROM >> 4):%$on
%$on:   nop
        DONE
        CHECK 'call-far-rf', RF | 2
        call (ROM >> 4):%$on
%$on:   nop
        DONE
        CHECK 'int-rf', RF | 2
        int 0x40
%$on:   nop
        DONE
        CHECK 'iret-rf', RF | 2
        push word 2
        push cs
        push word %$on
        iret
%$on:   nop
        DONE
        CHECK 'iretd-rf', RF | 2
        push dword 2
        push dword ROM >> 4
        push dword %$on
        iretd
%$on:   nop
        DONE
        CHECK 'iretd-loads-rf', 2
        push dword RF | 2
        push dword ROM >> 4
        push dword %$on
        iretd
%$on:   nop
        DONE
%define TWO
        CHECK 'iretd-loads-rf-2', 2
        push dword RF | 2
        push dword ROM >> 4
        push dword %$on
        iretd
%$on:   nop
%$on2:  nop
        DONE
        CHECK 'two-rf', RF | 2
%$on:   nop
        nop
%$on2:  nop
        DONE
        CHECK 'same', 2
        nop
%$on:
%$on2:  nop
        DONE
%undef TWO
        CHECK 'rep-self', 2
%$on:   rep movsb
        DONE
        CHECK 'rep-self-rf', RF | 2
%$on:   rep movsb
        DONE
        CHECK 'rep-rf', RF | 2
        rep movsb
%$on:   nop
        DONE
        CHECK 'repne-scasb-self-rf', RF | 2
%$on:   repne scasb
        DONE
        CHECK 'rep-none-rf', RF | 2
        xor cx, cx
        rep movsb
%$on:   nop
        DONE
        CHECK 'loop-self', 2
%$on:   loop %$on
        DONE
        CHECK 'loop-self-rf', RF | 2
%$on:   loop %$on
        DONE
        CHECK 'loop-rf', RF | 2
        loop %$on
        nop
%$on:   nop
        DONE
        CHECK 'sti-rf', RF | 2
        sti
%$on:   cli
        DONE
        CHECK 'mov-ss-rf', RF | 2
        mov ss, si
        nop
%$on:   nop
        DONE
        CHECK 'popf-rf', RF | 2
        popf
%$on:   nop
        DONE
        CHECK 'pushfd-rf', RF | 2
        pushfd
%$on:   nop
        DONE
        CHECK 'in-rf', RF | 2
        in al, 0x61
%$on:   nop
        DONE
        CHECK 'out-rf', RF | 2
        out 0x84, al
%$on:   nop
        DONE
        CHECK 'cpuid-rf', RF | 2
        cpuid
%$on:   nop
        DONE
        CHECK 'mov-cr-rf', RF | 2
        mov cr3, esi
%$on:   nop
        DONE
        CHECK 'pause-rf', RF | 2
        pause
%$on:   nop
        DONE
        CHECK 'fnop-rf', RF | 2
        fnop
%$on:   nop
        DONE
        CHECK 'limit', 2
%$on:   mov ax, [0xFFFF]
        DONE
        CHECK 'limit-rf', RF | 2
%$on:   mov ax, [0xFFFF]
        DONE
        CHECK 'limit-second', 2
        nop
%$on:   mov ax, [0xFFFF]
        DONE
        CHECK 'divide', 2
%$on:   div ch
        DONE
        CHECK 'divide-second-rf', RF | 2
        nop
%$on:   div ch
        DONE

        TEST 16, 'end'
        mov al, 0
        jmp finish16

outcome:
        xor eax, eax
        mov dr7, eax
        mov ss, ax
        ret

service:
        iret

; #DB: print where, with DR6, and go on there without what has been met
debug:  push bp
        mov bp, sp
        push eax
        mov ah, 'D'
        call where
        mov eax, dr6
        and al, 15
        call hex2_16
        push ebx
        mov ebx, dr7
        test al, 1
        jz .other
        and bl, ~2
.other: test al, 2
        jz .met
        and bl, ~8
.met:   mov dr7, ebx
        pop ebx
        xor eax, eax
        mov dr6, eax
        pop eax
        pop bp
        iret
protection:
        push bp
        mov bp, sp
        mov ah, 'G'
        jmp fault
zero_divide:
        push bp
        mov bp, sp
        mov ah, '0'
fault:  call where
        mov ax, [after]
        mov [bp + 2], ax
        pop bp
        iret
; Print AH and how far the address in the frame above BP is behind the first instruction.
where:  mov al, ' '
        out 0xE9, al
        mov al, ah
        out 0xE9, al
        mov ax, [bp + 2]
        sub ax, [cs_of_check]
        jmp hex4_16

RESET_VECTOR start
