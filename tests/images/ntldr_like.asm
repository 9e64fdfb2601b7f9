; A hard disk whose loader works as those of the NT family do: a 16-bit module that lives in protected mode on segments
; whose base is not selector * 16 (their base is not even a multiple of 16), code, data and stack alike; thunks to real
; mode for each service of the BIOS; a flat 32-bit stage, read from the disk by those thunks, that draws a progress bar
; on the planar VGA, reads on through the thunks, and makes excursions into virtual 8086 mode under a small monitor.
;
; It prints its results on the screen (INT 10h), COM1 and port E9h: sums of what it has read and drawn. Ends with debug
; exit 21h, with a small code where something is wrong. With PICTURE defined it halts when the bar is complete.
;
; Run:  nasm -f bin -I tests/images/ -o ntldr.img tests/images/ntldr_like.asm
;       v2e run --disk ntldr.img --serial stdio --until exit
;       qemu-system-x86_64 -drive file=ntldr.img,format=raw -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=1

SU_SECTORS      equ 8                   ; the 16-bit module, from LBA 1
UNCHANGED       equ 0x100               ; bytes of it that running does not change
STAGE_SECTORS   equ 8                   ; the 32-bit stage behind it
DATA_SECTORS    equ 64                  ; what it loads behind that, in steps of the progress bar
STEP_SECTORS    equ 4
STEPS           equ DATA_SECTORS / STEP_SECTORS

SU_SEGMENT      equ 0x2000              ; where the module is in real mode
SU              equ SU_SEGMENT << 4
BOUNCE_SEGMENT  equ 0x3000              ; where BIOSes put sectors
BOUNCE          equ BOUNCE_SEGMENT << 4
STAGE           equ 0x100000
DATA            equ 0x120000
TSS             equ 0x110000            ; 104 bytes and a bitmap of all ports
IDT             equ 0x114000
REAL_STACK      equ 0xFFF0              ; in SU_SEGMENT

; Bases, none of which is selector << 4.
SKEW            equ 0x35                ; a datum of the module has this much more as its offset in DATA16
STACK_BASE      equ 0x2ABCD
STACK_LIMIT     equ 0x0FFF
SKEW_B          equ 7                   ; code in CODE16B has so much less

CODE32          equ 0x08                ; flat
DATA32          equ 0x10
TASK            equ 0x18
REAL_DATA       equ 0x50                ; what a CPU must have cached in real mode
CODE16          equ 0x58
DATA16          equ 0x60
STACK16         equ 0x68
CODE16B         equ 0x70
HIGH16          equ 0x78                ; the stage's 64 KiB, for a 16-bit copy
BOUNCE16        equ 0x80

PORT_COM1       equ 0x3F8
PORT_DEBUG      equ 0xE9
PORT_EXIT       equ 0xF4
PORT_POST       equ 0x80                ; what virtual 8086 code may not touch by itself
CODE_DONE       equ 0x21

%define D(x) ((x) + SKEW)               ; a datum of the module as an offset in DATA16
%define L(x) ((x) + SU)                 ; and as a linear address

; ---------------------------------------------------------------------------------------------------- boot sector
section boot start=0 vstart=0x7C00
bits 16
        jmp 0:.cs
.cs:    xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [.drive], dl
        mov ah, 0x42
        mov si, .packet
        int 0x13
        jc .failed
        mov dl, [.drive]
        jmp SU_SEGMENT:0
.failed:
        mov al, 1
        out PORT_EXIT, al
        cli
        hlt
align 4
.packet:
        db 16, 0
        dw SU_SECTORS, 0, SU_SEGMENT
        dq 1
.drive: db 0
        times 446 - ($ - $$) db 0
        db 0x80, 0, 1, 0, 0x0C, 0, 2, 0
        dd 1, SU_SECTORS + STAGE_SECTORS + DATA_SECTORS
        times 510 - ($ - $$) db 0
        dw 0xAA55

; ------------------------------------------------------------------------------------------------- 16-bit module
section su follows=boot vstart=0
bits 16
        cli
        mov ax, SU_SEGMENT
        mov ds, ax
        mov ss, ax
        mov sp, REAL_STACK
        mov [drive], dl
        mov dx, PORT_COM1 + 3           ; characters of 8 bits
        mov al, 3
        out dx, al
        in al, 0x92                     ; A20
        or al, 2
        and al, 0xFE
        out 0x92, al
        lgdt [gdt_register]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp CODE16:protected

protected:                              ; CS base SU, DS base SU - SKEW, SS base STACK_BASE
        call data_segments
        mov ax, STACK16
        mov ss, ax
        mov sp, STACK_LIMIT + 1
        mov si, D(s_hello)
        call print16

        ; a far call into code whose base is no multiple of 16, and back
        mov si, D(0)
        mov cx, UNCHANGED
        call CODE16B:sum16 - SKEW_B
        mov si, D(s_module)
        call print16_sum

        ; the 32-bit stage, by the BIOS into low memory, by a segment of its own to where it runs
        mov word [D(lba)], 1 + SU_SECTORS
        mov word [D(count)], STAGE_SECTORS
        call read16
        push ds
        mov ax, BOUNCE16
        mov ds, ax
        mov ax, HIGH16
        mov es, ax
        xor si, si
        xor di, di
        mov cx, STAGE_SECTORS * 512 / 4
        cld
        rep movsd
        push es
        pop ds
        xor si, si
        mov cx, STAGE_SECTORS * 512
        call CODE16B:sum16 - SKEW_B
        pop ds
        push ds
        pop es
        mov si, D(s_stage)
        call print16_sum
        jmp dword CODE32:STAGE

; Sum of CX bytes from DS:SI, in EAX: rotated by 5 and added. It is called as code of CODE16B.
sum16:
        xor eax, eax
        xor edx, edx
        cld
.byte:  mov dl, [si]
        inc si
        rol eax, 5
        add eax, edx
        loop .byte
        retf

data_segments:
        mov ax, DATA16
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        ret

        times UNCHANGED - ($ - $$) db 0
%include "ntldr_thunks.inc"

align 8
gdt:
        dq 0
        dq 0x00CF9A000000FFFF           ; CODE32
        dq 0x00CF92000000FFFF           ; DATA32
        DESCRIPTOR TSS, 104 + 0x2000, 0x89
        times REAL_DATA - ($ - gdt) db 0
        DESCRIPTOR 0, 0xFFFF, 0x92
        DESCRIPTOR SU, 0xFFFF, 0x9A
        DESCRIPTOR SU - SKEW, 0xFFFF, 0x92
        DESCRIPTOR STACK_BASE, STACK_LIMIT, 0x92
        DESCRIPTOR SU + SKEW_B, 0xFFF8, 0x9A
        DESCRIPTOR STAGE, 0xFFFF, 0x92
        DESCRIPTOR BOUNCE, 0xFFFF, 0x92
gdt_end:
gdt_register:   dw gdt_end - gdt - 1
                dd L(gdt)
ivt_register:   dw 0x3FF
                dd 0
idt_register:   dw 0                    ; the stage's, once it has one
                dd 0
s_hello:        db 'ntldr: 16-bit protected mode', 13, 10, 0
s_module:       db 'ntldr: module ', 0
s_stage:        db 'ntldr: stage ', 0
s_newline:      db 13, 10, 0
        times SU_SECTORS * 512 - ($ - $$) db 0

; ------------------------------------------------------------------------------------------------- 32-bit stage
section stage follows=su vstart=STAGE
%include "ntldr_stage.inc"
        times STAGE_SECTORS * 512 - ($ - $$) db 0

; -------------------------------------------------------------------------------------------------------- data
section data follows=stage vstart=0
%assign value 0x1234
%rep DATA_SECTORS * 128
        dd value
%assign value (value * 1664525 + 1013904223) & 0xFFFFFFFF
%endrep
