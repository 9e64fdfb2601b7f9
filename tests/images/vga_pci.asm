; The PCI VGA as a boot loader finds it behind a BIOS: a boot sector that loads the rest and prints to port E9h what PCI,
; VBE, the frame buffer and the MMIO BAR say. Ends by the debug-exit port.
bits 16
org 0x7c00

    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ax, 0x0206
    mov cx, 2
    xor dh, dh
    mov bx, 0x7e00
    int 0x13
    jmp second
    times 510 - ($ - $$) db 0
    dw 0xaa55

%macro show 1+                  ; text, then EAX, then a newline
    mov si, %%text
    call line
    jmp %%over
%%text: db %1, 0
%%over:
%endmacro

%include "line.inc"

conf:                           ; AL: register of the function in [device]; EAX from it
    movzx eax, al
    or eax, [device]
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    ret

setconf:                        ; AL: register, EBX into it
    call conf
    mov eax, ebx
    out dx, eax
    ret

device: dd 0x80000000

flat:                           ; FS: base 0, 4 GiB
    cli
    lgdt [gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    sti
    ret
align 8
gdt: dq 0, 0x00cf93000000ffff
gdtr:
    dw 15
    dd gdt

second:
.find:
    mov al, 0
    call conf
    cmp eax, 0x11111234
    je .found
    add dword [device], 0x800
    jmp .find
.found:
    mov eax, [device]
    show "function "
    mov al, 8
    call conf
    show "class and revision "
    mov al, 0x2c
    call conf
    show "subsystem "
    mov al, 0x3c
    call conf
    and eax, 0xff00
    show "pin "
    mov al, 4
    call conf
    and eax, 3
    show "decoded "
    mov al, 0x10
    call conf
    mov [lfb], eax
    and byte [lfb], 0xf0
    show "BAR 0 "
    mov al, 0x18
    call conf
    mov [mmio], eax
    show "BAR 2 "
    ; the ROM, which the BIOS has switched off again
    mov al, 0x30
    call conf
    mov [rombar], eax
    and eax, 1
    show "ROM enabled "
    mov al, 0x30
    mov ebx, 0xfffffffe
    call setconf
    mov al, 0x30
    call conf
    show "ROM size "
    call flat
    mov al, 0x30
    mov ebx, [rombar]
    or bl, 1
    call setconf
    mov ebx, [rombar]
    and bl, 0xfe
    movzx eax, word [fs:ebx]
    show "ROM signature "
    movzx edi, word [fs:ebx + 0x18]
    mov eax, [fs:ebx + edi]
    show "ROM data "
    mov eax, [fs:ebx + edi + 4]
    show "ROM of "
    mov dword [fs:ebx], 0
    movzx eax, word [fs:ebx]
    show "ROM after a write "
    mov al, 0x30
    mov ebx, [rombar]
    call setconf

    ; -- VBE
    mov ax, 0x4f01
    mov cx, 0x101
    mov di, 0x9000
    int 0x10
    movzx eax, ax
    show "mode information "
    mov eax, [0x9000 + 40]
    cmp eax, [lfb]
    sete al
    movzx eax, al
    show "PhysBasePtr is BAR 0 "
    mov ax, 0x4f02
    mov bx, 0x4101
    int 0x10
    movzx eax, ax
    show "mode set "
    call flat
    mov ebx, [lfb]
    mov dword [fs:ebx + 0x12344], 0xcafe1234
    mov ax, 0x4f05
    mov bx, 0
    mov dx, 1
    int 0x10
    mov ax, 0xa000
    mov es, ax
    mov eax, [es:0x2344]
    show "by the window "
    mov dword [es:0x2344], 0x55aa55aa
    mov eax, [fs:ebx + 0x12344]
    show "by the frame buffer "

    ; -- moved: the contents go along
    mov al, 4
    call conf
    mov [command], eax
    mov ebx, eax
    and bl, 0xfd
    mov al, 4
    call setconf
    mov al, 0x10
    mov ebx, 0xe8000000
    call setconf
    mov al, 4
    mov ebx, [command]
    call setconf
    mov ebx, 0xe8000000
    mov eax, [fs:ebx + 0x12344]
    show "moved "
    mov al, 4
    call conf
    mov ebx, eax
    and bl, 0xfd
    mov al, 4
    call setconf
    mov ebx, 0xe8000000
    mov eax, [fs:ebx + 0x12344]
    show "not decoded "
    mov al, 0x10
    mov ebx, [lfb]
    call setconf
    mov al, 4
    mov ebx, [command]
    call setconf

    ; -- the MMIO BAR
    mov ebx, [mmio]
    movzx eax, word [fs:ebx + 0x500]
    show "dispi ID "
    movzx eax, word [fs:ebx + 0x502]
    show "dispi XRES "
    movzx eax, word [fs:ebx + 0x514]
    show "dispi memory "
    mov word [fs:ebx + 0x512], 8
    movzx eax, word [fs:ebx + 0x512]
    show "dispi Y offset "
    mov dx, 0x1ce
    in ax, dx
    movzx eax, ax
    show "index port "
    mov eax, [fs:ebx + 0x600]
    show "extended size "
    mov eax, [fs:ebx + 0x604]
    show "byte order "
    mov word [fs:ebx + 0x404], 0x0b02  ; sequencer 2: map mask 0Bh
    mov byte [fs:ebx + 0x404], 2
    movzx eax, byte [fs:ebx + 0x405]
    show "sequencer 2 "
    mov dx, 0x3c5
    in al, dx
    movzx eax, al
    show "by its port "
    mov dx, 0x3c7
    mov al, 0
    out dx, al
    mov byte [fs:ebx + 0x408], 5
    mov byte [fs:ebx + 0x409], 1
    mov byte [fs:ebx + 0x409], 2
    mov byte [fs:ebx + 0x409], 3
    mov byte [fs:ebx + 0x407], 5
    movzx eax, byte [fs:ebx + 0x409]
    mov ah, [fs:ebx + 0x409]
    shl eax, 8
    mov al, [fs:ebx + 0x409]
    show "colour 5 "
    mov al, 0x10
    out 0xf4, al
    hlt

lfb: dd 0
mmio: dd 0
rombar: dd 0
command: dd 0
    times 0xe00 - ($ - $$) db 0
