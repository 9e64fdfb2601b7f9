; Where a borrowed vCPU waits, and what it does for the emulator meanwhile: two pages at BASE, flat 32-bit code without
; paging. Assembled into parking.bin by tools/parking.py.
;
; Two ports belong to ioreq servers of ours; a vCPU that reads one stands still, using no CPU, until it is answered.
;   DOOR  the vCPU is free; the answer is a number in `does`: what to do next. The operands are in `box`. Written to, it
;         is about to leave.
;   BELL  an interrupt has been acknowledged by its owner; its vector is in `box`.

BASE    equ 0xFEFE0000          ; below the LAPIC, above all that hvmloader gives away (its reserved range ends at
                                ; FE000000h) and below its special pages (FEFF0000h)
DOOR    equ 0x5C
BELL    equ 0x5D
CODE    equ 0x08
DATA    equ 0x10
FREE_IF equ ~0x200

        org BASE
        bits 32

park:   mov esp, stack
        in al, DOOR
        movzx eax, al
        mov edx, [address]
        jmp [does + eax * 4]

in8:    in al, dx
        jmp done
in16:   in ax, dx
        jmp done
in32:   in eax, dx
        jmp done
out8:   mov eax, [value]
        out dx, al
        jmp done
out16:  mov eax, [value]
        out dx, ax
        jmp done
out32:  mov eax, [value]
        out dx, eax
        jmp done
load8:  mov al, [edx]
        jmp done
load16: mov ax, [edx]
        jmp done
load32: mov eax, [edx]
        jmp done
store8: mov eax, [value]
        mov [edx], al
        jmp done
store16: mov eax, [value]
        mov [edx], ax
        jmp done
store32: mov eax, [value]
        mov [edx], eax
        jmp done
done:   mov [value], eax
        jmp park

; the leaf and its part are two operands, the answer is in four words
cpuid_: mov eax, [value]
        mov ecx, edx
        cpuid
        mov [answer], eax
        mov [answer + 4], ebx
        mov [answer + 8], ecx
        mov [answer + 12], edx
        jmp park

; two bytes of ours to memory, by one instruction
copy:   mov esi, box
        mov edi, edx
        mov ecx, 2
        rep movsb
        jmp park

; until an interrupt comes, or an NMI, by which we are called back
listen: sti
        hlt
        jmp listen

; to where other registers can be loaded: Xen finishes a read in the registers that are there then, a write in none
leave_: out DOOR, al
        jmp $

; behind each of `stubs`, which has pushed its vector
taken:  pop eax
        cmp eax, 2
        je called
        mov [vector], eax
        in al, BELL
        jmp back
called: mov dword [woken], 1
; IRET ends the blocking of NMIs
back:   mov dword [esp], park
        and dword [esp + 8], FREE_IF
        iret

does:   dd park, in8, in16, in32, out8, out16, out32, load8, load16, load32, store8, store16, store32, listen, leave_
        dd cpuid_, copy

        times 0x1E0 - ($ - $$) db 0
gdt:    dq 0
        dq 0x00CF9B000000FFFF   ; CODE: flat, 32 bits
        dq 0x00CF93000000FFFF   ; DATA: flat

        times 0x200 - ($ - $$) db 0
box:
address dd 0                    ; 200h: port or physical address
value   dd 0                    ; 204h: to be written, or what was read
vector  dd 0                    ; 208h: of the interrupt, while BELL waits
woken   dd 0                    ; 20Ch: the NMI has come
answer  dd 0, 0, 0, 0           ; 210h: EAX, EBX, ECX, EDX of CPUID

        times 0x800 - ($ - $$) db 0
stack:
idt:
%assign i 0
%rep 256
        dw (stubs - $$ + BASE + i * 10) & 0xFFFF, CODE, 0x8E00, (stubs - $$ + BASE + i * 10) >> 16
%assign i i + 1
%endrep

stubs:
%assign i 0
%rep 256
        push dword strict i
        jmp strict near taken
%assign i i + 1
%endrep
        times 0x2000 - ($ - $$) db 0
