; Exceptions and interrupts in real mode. ROM: QEMU -bios, v2e run --firmware.
;
; A line a test on port E9h: its name, then for each exception or interrupt taken in it
;   vector@CS.IP/fFLAGS/hHH/sSP
; as pushed; h: IF and TF (bits 9, 8) in the handler; s: SP on its entry. Ends with debug exit 0.
%include "guest.inc"

RESUME          equ 0x600               ; dw: where a handler returns to instead of the pushed IP, once
STACK           equ 0x7000
IVT2            equ 0x2000              ; a second vector table, for LIDT

; A test of one instruction that should fault: %1 name, %2 the instruction
%macro FAULTS 2+
        TEST 16, %1
        mov word [ss:RESUME], %%after
        %2
%%after:
        mov word [ss:RESUME], 0
%endmacro

org 0
rom:
GUEST_SERVICES 16

start:
        cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        mov sp, STACK
        mov [RESUME], ax
        mov di, 0
        call fill
        mov di, IVT2
        call fill
        SETUP_PIC

        xor cx, cx
        mov ax, 1
        cwd
        FAULTS 'de-div-0', div cx
        mov dx, 1
        mov cx, 1
        FAULTS 'de-overflow', div cx
        mov ax, 0x8000
        mov dx, 0xFFFF
        mov cx, 0xFFFF
        FAULTS 'de-idiv', idiv cx
        mov al, 5
        FAULTS 'de-aam', db 0xD4, 0
        TEST 16, 'int3'
        int3
        TEST 16, 'int3-cd03'
        db 0xCD, 3
        TEST 16, 'int-n'
        int 0x21
        TEST 16, 'int-n-with-if'
        sti
        int 0x21
        cli
        TEST 16, 'into-not'
        into
        mov al, 0x7F
        TEST 16, 'into'
        add al, 1
        into
        mov ax, 5
        TEST 16, 'bound-in'
        bound ax, [cs:bounds]
        mov ax, 9
        FAULTS 'bound-above', bound ax, [cs:bounds]
        mov ax, 1
        FAULTS 'bound-below', bound ax, [cs:bounds]
        FAULTS 'ud2', ud2
        FAULTS 'ud-lock', db 0xF0, 0x90
        FAULTS 'ud-mov-cs', db 0x8E, 0xC8
        FAULTS 'ud-lea-register', db 0x8D, 0xC0
        FAULTS 'ud-bound-register', db 0x62, 0xC0
        FAULTS 'ud-lldt-in-real', lldt ax
        FAULTS 'ud-ltr-in-real', ltr ax
        FAULTS 'ud-sldt-in-real', sldt ax
        FAULTS 'ud-str-in-real', str ax
        FAULTS 'ud-verr-in-real', verr ax
        FAULTS 'ud-arpl-in-real', arpl ax, bx
        FAULTS 'ud-lar-in-real', lar ax, bx
        FAULTS 'ud-cr5', db 0x0F, 0x20, 0xE8
        FAULTS 'gp-16-byte-instruction', db 15 dup (0x66), 0x90
        TEST 16, '15-byte-instruction'
        times 14 db 0x66
        nop

; x87
        mov eax, cr0
        mov ebx, eax
        or al, 0x04                     ; EM
        mov cr0, eax
        FAULTS 'nm-em', fninit
        mov eax, ebx
        and al, ~0x04
        or al, 0x0A                     ; MP and TS
        mov cr0, eax
        FAULTS 'nm-ts', fninit
        FAULTS 'nm-mp-ts-wait', wait
        and al, ~0x02
        mov cr0, eax
        TEST 16, 'wait-with-ts-without-mp'
        wait
        clts
        mov eax, cr0
        or al, 0x22                     ; NE and MP
        mov cr0, eax
        fninit
        fldcw [cs:zero_divide]
        fld1
        fldz
        TEST 16, 'mf'
        fdivp st1, st0                  ; the exception is pending until the next waiting instruction
        mov word [RESUME], .mf
        wait
.mf:    mov word [RESUME], 0
        fninit
        mov cr0, ebx

; single step
%macro SET_TF 0
        pushf
        or word [ss:bx], 0x100          ; BX = SP - 2
        popf
%endmacro
%macro CLEAR_TF 0
        pushf
        and word [ss:bx], 0xFEFF
        popf
%endmacro
        mov bx, STACK - 2
        mov ax, ss
        TEST 16, 'tf'
        SET_TF
        nop
        mov dx, 1
        CLEAR_TF
        TEST 16, 'tf-int'
        SET_TF
        int 0x21
        nop
        CLEAR_TF
        TEST 16, 'tf-mov-ss'
        SET_TF
        mov ss, ax                      ; the trap after it is held off until the next instruction is done
        nop
        CLEAR_TF
        push ss
        TEST 16, 'tf-pop-ss'
        mov bx, STACK - 4
        SET_TF
        pop ss
        nop
        mov bx, STACK - 2
        CLEAR_TF
        TEST 16, 'tf-rep-movsb'
        mov cx, 3
        mov si, 0x3000
        mov di, 0x3100
        SET_TF
        rep movsb                       ; a trap after each iteration
        CLEAR_TF
        TEST 16, 'tf-jump'
        SET_TF
        jmp short .tfj
        nop
.tfj:   nop
        CLEAR_TF
        xor cx, cx
        TEST 16, 'tf-fault'
        mov word [RESUME], .tff
        SET_TF
        div cx
.tff:   mov word [RESUME], 0
        CLEAR_TF
        TEST 16, 'tf-cli'
        SET_TF
        cli
        nop
        CLEAR_TF
        TEST 16, 'tf-out'
        SET_TF
        out 0x80, al
        in al, 0x80
        CLEAR_TF

; interrupts from the timer: the request is up before the instruction that could take it
        mov dx, 0
        PEND_TIMER
        TEST 16, 'sti-shadow'
        sti
        nop
        nop
        cli
        PEND_TIMER
        TEST 16, 'sti-sti'
        sti
        sti                             ; IF was set already: no second shadow
        nop
        nop
        cli
        PEND_TIMER
        TEST 16, 'sti-cli'
        sti
        cli                             ; never interruptible in between
        nop
        sti
        nop
        cli
        mov ax, ss
        push ax
        PEND_TIMER
        TEST 16, 'mov-ss-shadow'
        mov ax, ss
        sti
        mov ss, ax
        nop
        nop
        cli
        PEND_TIMER
        TEST 16, 'pop-ss-shadow'
        sti
        pop ss
        nop
        nop
        cli
        PEND_TIMER
        TEST 16, 'popf-if'
        push word 0x202
        popf                            ; no shadow
        nop
        nop
        cli
        PEND_TIMER
        TEST 16, 'iret-if'
        push word 0x202
        push cs
        push word .iret
        iret
        nop
.iret:  nop
        cli
        PEND_TIMER
        TEST 16, 'sti-int'
        sti
        int 0x21                        ; in STI's shadow; its handler runs with IF clear, then the timer comes
        nop
        cli
        PEND_TIMER
        TEST 16, 'sti-hlt-pending'
        sti
        hlt
        nop
        cli
        TEST 16, 'sti-hlt'
        mov al, 0x30
        out 0x43, al
        mov al, 0xF0
        out 0x40, al
        mov al, 0
        out 0x40, al
        sti
        hlt
        cli
        PEND_TIMER
        TEST 16, 'sti-tf'
        mov bx, STACK - 2
        pushf
        or word [ss:bx], 0x300
        popf                            ; IF and TF: interrupt at once, then the step's trap
        nop
        CLEAR_TF
        cli
        PEND_TIMER
        TEST 16, 'masked'
        mov al, 0xFF
        out 0x21, al
        sti
        nop
        nop
        cli
        mov al, 0xFE
        out 0x21, al
        TEST 16, 'unmasked'
        sti
        nop
        nop
        cli
        mov al, 0xFF
        out 0x21, al

; the vector table is where IDTR says, as long as IDTR says
        o32 lidt [cs:idtr2]
        mov word [IVT2 + 0x21 * 4], moved
        TEST 16, 'lidt'
        int 0x21
        FAULTS 'idt-limit', int 0x40    ; vector 40h is beyond the limit: #GP, which in real mode pushes no code
        TEST 16, 'end'
        mov al, 0
        jmp finish16

moved:
        call mark16
        db ' moved', 0
        iret

fill:                                   ; vectors 0-7Fh at ES:DI
        mov ax, stubs
        mov cx, 0x30
.next:  stosw
        mov [es:di], cs
        add di, 2
        add ax, 5
        loop .next
        ret

; Every vector's stub: 5 bytes
%assign vector 0
stubs:
%rep 0x30
        push byte vector
        jmp near taken
%assign vector vector + 1
%endrep

taken:
        pushf
        push bp
        mov bp, sp                      ; [bp+2] own FLAGS, +4 vector, +6 IP, +8 CS, +10 FLAGS
        push ax
        push di
        mov al, ' '
        out 0xE9, al
        mov al, [bp + 4]
        call hex2_16
        mov al, '@'
        out 0xE9, al
        mov ax, [bp + 8]
        call hex4_16
        mov al, '.'
        out 0xE9, al
        mov ax, [bp + 6]
        call hex4_16
        call mark16
        db '/f', 0
        mov ax, [bp + 10]
        call hex4_16
        call mark16
        db '/h', 0
        mov al, [bp + 3]
        and al, 3
        call hex2_16
        call mark16
        db '/s', 0
        lea ax, [bp + 6]
        call hex4_16
        cmp byte [bp + 4], 0x20
        jne .resume
        mov al, 0x20                    ; end of interrupt
        out 0x20, al
.resume:
        xor ax, ax
        xchg ax, [ss:RESUME]
        test ax, ax
        jz .same
        mov [bp + 6], ax
.same:  pop di
        pop ax
        pop bp
        add sp, 4
        iret

align 4
bounds:         dw 2, 7
zero_divide:    dw 0x037B               ; all masked but ZM
idtr2:          dw 0x30 * 4 - 1
                dd IVT2
RESET_VECTOR start
