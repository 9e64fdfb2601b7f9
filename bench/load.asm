; A boot sector that loads SECTORS sectors by INT 13h, one call for each, as loaders that list blocks do, adds them up
; and ends the run. DRIVE is floppy (CHS, 18 sectors a track) or disk (LBA).
        bits 16
        org 7c00h
BUFFER  equ 1000h               ; segment
PER_TRACK equ 18
HEADS   equ 2
EXIT    equ 0f4h

start:
        cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 7c00h
        sti
        cld
        mov [drive], dl
        mov word [left], SECTORS
next:
%ifidn  DRIVE, disk
        mov si, packet
        mov ah, 42h
        mov dl, [drive]
        int 13h
        jc failed
        inc dword [lba]
%else
        mov ax, [lba]
        xor dx, dx
        mov cx, PER_TRACK
        div cx
        mov cl, dl
        inc cl                  ; sector, from 1
        xor dx, dx
        mov bx, HEADS
        div bx
        mov ch, al              ; cylinder
        mov dh, dl              ; head
        mov dl, [drive]
        mov ax, BUFFER
        mov es, ax
        xor bx, bx
        mov ax, 0201h
        int 13h
        jc failed
        inc word [lba]
%endif
        mov ax, BUFFER
        mov es, ax
        xor di, di
        mov cx, 256
        xor bx, bx
sum:    add bx, [es:di]
        add di, 2
        loop sum
        add [total], bx
        dec word [left]
        jnz next
        mov al, 0
        out EXIT, al
failed: mov al, 1
        out EXIT, al
        hlt

drive   db 0
left    dw 0
total   dw 0
packet  db 16, 0
        dw 1, 0, BUFFER
lba     dd 1, 0
        times 510 - ($ - $$) db 0
        dw 0aa55h
        times SIZE - ($ - $$) db 0
