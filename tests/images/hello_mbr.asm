; A boot sector for a hard disk and the sector behind it (1 KiB together). It prints through INT 10h, reads sector 2
; through INT 13h twice, by CHS and by LBA, and prints the text it finds there. Ends with debug exit 0, with 1 if the
; BIOS reports an error, with 2 if the two reads differ.
;
; Run:  nasm -f bin -o hello.img hello_mbr.asm
;       v2e run --machine isapc --firmware seabios --disk hello.img
;       qemu-system-x86_64 -M isapc -drive file=hello.img,format=raw -device isa-debug-exit,iobase=0xf4,iosize=1
bits 16
org 0x7C00
start:
        jmp 0:.cs                       ; some BIOSes come here as 07C0:0000
.cs:    xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7C00
        mov [drive], dl
        mov si, hello
        call print
        mov al, [drive]
        call hex
        mov si, newline
        call print

        mov ax, 0x0201                  ; read one sector: cylinder 0, head 0, sector 2
        mov cx, 0x0002
        mov dh, 0
        mov dl, [drive]
        mov bx, 0x8000
        int 0x13
        jc error
        mov ah, 0x42                    ; extended read of LBA 1
        mov dl, [drive]
        mov si, packet
        int 0x13
        jc error
        mov si, 0x8000
        mov di, 0x9000
        mov cx, 256
        repe cmpsw
        mov al, 2
        jne exit
        mov si, 0x8000
        call print
        mov al, 0
exit:   out 0xF4, al
        mov si, shutdown                ; for Bochs, which has no debug exit
        mov dx, 0x8900
        mov cx, 8
        rep outsb
        cli
.stop:  hlt
        jmp .stop
error:  mov si, failed
        call print
        mov al, ah
        call hex
        mov al, 1
        jmp exit

print:                                  ; DS:SI up to a zero
        lodsb
        test al, al
        jz .done
        call putc
        jmp print
.done:  ret
hex:                                    ; AL
        push ax
        shr al, 4
        call .digit
        pop ax
        and al, 15
.digit: add al, '0'
        cmp al, '9'
        jbe putc
        add al, 'A' - '9' - 1
putc:                                   ; on the screen, and on the debug port
        out 0xE9, al
        mov ah, 0x0E
        mov bx, 7
        int 0x10
        ret

hello:          db 'hello from the boot sector, drive ', 0
newline:        db 13, 10, 0
failed:         db 'INT 13h failed: ', 0
shutdown:       db 'Shutdown'
align 4
packet:         db 16, 0                ; disk address packet
                dw 1, 0x9000, 0         ; sectors, offset, segment
                dq 1                    ; LBA
drive:          db 0
        times 446 - ($ - $$) db 0
        db 0x80, 0, 1, 0, 0x0C, 0, 2, 0 ; an active partition of one sector, as BIOSes like to see
        dd 1, 1
        times 510 - ($ - $$) db 0
        dw 0xAA55
        db 'hello from sector 2', 13, 10, 0
        times 1024 - ($ - $$) db 0
