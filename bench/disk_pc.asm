; A 64 KiB ROM for `pc` that reads COMMANDS times 128 KiB from the first sector on, and ends the run: with VIRTIO by a
; virtio-blk device's legacy interface, else by READ DMA of the primary IDE channel's first disk. It says `b` at the
; debug console before the first command and `e` behind the last.
bits 16
org 0

PORTS   equ 0xc000              ; the BAR
HEADER  equ 0x600               ; a descriptor table, or a virtio request
RING    equ 0x1000              ; segment; the parts of a legacy queue of 256 in it

%macro setconf 3                ; device, register, value
    mov eax, %1
    or eax, %2
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    mov eax, %3
    out dx, eax
%endmacro

%macro port 2                   ; port, byte
    mov dx, %1
    mov al, %2
    out dx, al
%endmacro

start:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    xor si, si                  ; the sector, in units of 256
    mov bp, COMMANDS

%ifdef VIRTIO
    mov ebx, 0x80000000
.find:
    mov eax, ebx
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    cmp eax, 0x10011af4
    je .found
    add ebx, 0x800
    cmp ebx, 0x80010000
    jb .find
    hlt
.found:
    setconf ebx, 0x10, PORTS
    setconf ebx, 4, 5
    port PORTS + 18, 0
    port PORTS + 18, 3
    mov dx, PORTS + 8
    mov eax, RING >> 8
    out dx, eax
    port PORTS + 18, 7
    mov ax, RING
    mov es, ax
    xor di, di
    xor ax, ax
    mov cx, 0x2000
    rep stosw
    mov dword [es:0], HEADER
    mov dword [es:8], 16
    mov dword [es:12], 1 | 1 << 16
    mov dword [es:16], 0x20000
    mov dword [es:24], 0x20000
    mov dword [es:28], 3 | 2 << 16
    mov dword [es:32], HEADER + 16
    mov dword [es:40], 1
    mov dword [es:44], 2
    mov word [es:0x1000], 1     ; no interrupts
    port 0xe9, 'b'
command:
    mov dword [HEADER], 0
    mov dword [HEADER + 4], 0
    movzx eax, si
    shl eax, 8
    mov [HEADER + 8], eax
    mov dword [HEADER + 12], 0
    mov byte [HEADER + 16], 0xee
    inc word [es:0x1002]        ; each entry of the ring is 0, the chain's head
    mov dx, PORTS + 16
    xor ax, ax
    out dx, ax
    mov ax, [es:0x1002]
.wait:
    cmp ax, [es:0x2002]
    jne .wait
    cmp byte [HEADER + 16], 0
    jne failed
%else
    setconf 0x80000900, 0x20, PORTS
    setconf 0x80000900, 4, 5
    mov dword [HEADER], 0x10000
    mov dword [HEADER + 4], 0
    mov dword [HEADER + 8], 0x20000
    mov dword [HEADER + 12], 0x80000000
    port 0x3f6, 2
    port 0x1f6, 0xe0
    port 0xe9, 'b'
command:
    mov dx, PORTS + 4
    mov eax, HEADER
    out dx, eax
    port PORTS + 2, 6
    port PORTS, 8
    port 0x1f2, 0
    port 0x1f3, 0
    mov ax, si
    mov dx, 0x1f4
    out dx, al
    mov al, ah
    inc dx
    out dx, al
    port 0x1f7, 0xc8
    port PORTS, 9
    mov dx, 0x3f6
.wait:
    in al, dx
    test al, 0x88               ; BSY and DRQ
    jnz .wait
    mov dx, PORTS + 2
    in al, dx
    test al, 3
    jnz failed
    port PORTS, 8
    mov dx, 0x1f7
    in al, dx
    test al, 1
    jnz failed
%endif
    inc si
    dec bp
    jnz command
    port 0xe9, 'e'
    port 0xf4, 0
failed:
    hlt

times 0xfff0-($-$$) db 0xf4
    jmp 0xf000:start
times 0x10000-($-$$) db 0
