; Asks every service of the BIOS but the screen's for what can be compared (bios_probe.inc).
;
; Run:  nasm -f bin -I tests/images/ -o probe.img tests/images/bios_probe.asm, padded to 10 MiB
;       v2e run --machine pc --disk probe.img --debugcon stdio --until exit
;       qemu-system-x86_64 -M pc -drive file=probe.img,format=raw -debugcon stdio -device isa-debug-exit,iobase=0xf4
bits 16
org 0x7C00
SECTORS equ 24
%include "bios_probe.inc"

buffer  equ 0xC000

probes: mov dx, [entry_dx]
        mov dh, 0
        call told
        db D, 'entry', 0
        ASK 0x11, 'equipment', 0
        ASK 0x12, 'conventional', A

        ; -- INT 13h
        mov ah, 0
        mov dl, 0x80
        ASK 0x13, 'reset', F
        mov ah, 8
        mov dl, 0x80
        ASK 0x13, 'parameters', B | C | D | F
        mov ah, 8
        mov dl, 0x81
        ASK 0x13, 'parameters of none', F
        mov ah, 8
        mov dl, 0x05
        ASK 0x13, 'parameters of drive 5', F
        push word 0
        pop es
        mov ah, 0x15
        mov dl, 0x80
        ASK 0x13, 'kind', C | D | F
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 1
        mov dx, 0x0080
        ASK 0x13, 'read', A | F
        mov ax, 0x0203
        mov bx, buffer
        mov cx, 0x013F
        mov dx, 0x0F80
        ASK 0x13, 'read over a track', A | F
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 0
        mov dx, 0x0080
        ASK 0x13, 'read sector 0', F
        mov ah, 1
        mov dl, 0x80
        ASK 0x13, 'status', F
        mov ax, 0x0200
        mov bx, buffer
        mov cx, 1
        mov dx, 0x0080
        ASK 0x13, 'read nothing', F
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 1
        mov dx, 0x1080
        ASK 0x13, 'read head 16', F
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 0xFFFF
        mov dx, 0x0080
        ASK 0x13, 'read cylinder 1023', F
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 1
        mov dx, 0x0085
        ASK 0x13, 'read drive 85', F
        mov ax, 0x0401
        mov cx, 1
        mov dx, 0x0080
        ASK 0x13, 'verify', F
        mov ah, 0x0C
        mov cx, 0x0101
        mov dx, 0x0080
        ASK 0x13, 'seek', F
        mov ah, 0x10
        mov dl, 0x80
        ASK 0x13, 'ready', F
        mov ah, 0x77
        mov dl, 0x80
        ASK 0x13, 'function 77', F
        mov di, buffer
        mov ax, 0x1234
        mov cx, 256
        rep stosw
        mov ax, 0x0301
        mov bx, buffer
        mov cx, 0x0503
        mov dx, 0x0080
        ASK 0x13, 'write', A | F
        mov word [buffer], 0
        mov ax, 0x0201
        mov bx, buffer
        mov cx, 0x0503
        mov dx, 0x0080
        int 0x13
        DUMP 'written', buffer, 4
        mov ah, 0x41
        mov bx, 0x55AA
        mov dl, 0x80
        ASK 0x13, 'extensions', A | B | C | F
        mov ah, 0x41
        mov bx, 0x1234
        mov dl, 0x80
        ASK 0x13, 'extensions by a wrong word', F
        mov si, packet
        mov ah, 0x42
        mov dl, 0x80
        ASK 0x13, 'extended read', A | F
        DUMP 'read', buffer + 510, 2
        mov dword [packet + 8], 0x00100000
        mov si, packet
        mov ah, 0x42
        mov dl, 0x80
        ASK 0x13, 'extended read beyond the end', F
        mov dword [packet + 8], 0
        mov byte [packet], 8
        mov si, packet
        mov ah, 0x42
        mov dl, 0x80
        ASK 0x13, 'extended read with a short packet', F
        mov byte [packet], 16
        mov si, packet
        mov ah, 0x44
        mov dl, 0x80
        ASK 0x13, 'extended verify', F
        mov si, packet
        mov ah, 0x47
        mov dl, 0x80
        ASK 0x13, 'extended seek', F
        mov word [buffer], 26
        mov si, buffer
        mov ah, 0x48
        mov dl, 0x80
        ASK 0x13, 'extended parameters', A | F
        DUMP 'extended parameters', buffer, 26
        mov word [buffer], 20
        mov si, buffer
        mov ah, 0x48
        mov dl, 0x80
        ASK 0x13, 'extended parameters in 20 bytes', F
        mov ax, 0x4B01
        mov si, buffer
        mov dl, 0x80
        ASK 0x13, 'emulation', F

        ; -- INT 15h
        mov ah, 0x88
        ASK 0x15, 'extended memory', A | F
        mov ax, 0xE801
        mov bx, 0
        mov cx, 0
        mov dx, 0
        ASK 0x15, 'E801', A | B | C | D | F
        mov ax, 0x2402
        ASK 0x15, 'A20', F
        mov ax, 0x2401
        ASK 0x15, 'A20 on', A | F
        mov ax, 0x2402
        ASK 0x15, 'A20 is', A | F
        mov ax, 0x2400
        ASK 0x15, 'A20 off', A | F
        mov ax, 0x2402
        ASK 0x15, 'A20 is', A | F
        mov ax, 0x2401
        int 0x15
        mov ah, 0x4F
        mov al, 0x1E
        stc
        ASK 0x15, 'keyboard intercept', F
        mov ax, 0x9000
        ASK 0x15, 'device busy', F
        mov ax, 0x7700
        ASK 0x15, 'function 77', A | F
        mov ah, 0xC0
        ASK 0x15, 'configuration', F
        mov cl, [es:bx + 5]
        mov ch, 0
        mov ax, [es:bx + 2]
        push word 0
        pop es
        call told
        db A | C, 'configuration model', 0
        mov dword [gdt + 0x12], 0x93000000 | 0x7C00
        mov dword [gdt + 0x1A], 0x93000000 | 0xD000
        mov si, gdt
        mov cx, 8
        mov ah, 0x87
        ASK 0x15, 'block move', F
        mov si, 0xD000
        mov di, 0x7C00
        mov cx, 8
        repe cmpsw
        call told
        db Z, 'block moved', 0
        mov dword [gdt + 0x12], 0x93000000 | 0x7C00
        mov dword [gdt + 0x1A], 0x93200000
        mov si, gdt
        mov cx, 8
        mov ah, 0x87
        ASK 0x15, 'block move up', F
        mov cx, 0
        mov dx, 5000
        mov ah, 0x86
        ASK 0x15, 'wait', F
        mov cx, 0
        mov dx, 300
        mov ah, 0x86
        ASK 0x15, 'short wait', F
        mov ah, 0xC1
        ASK 0x15, 'EBDA', F
        push word 0
        pop es
        mov ebx, 0
.e820:  mov eax, 0xE820
        mov edx, 0x534D4150
        mov ecx, 20
        mov di, buffer
        int 0x15
        jc .e820_end
        cmp dword [buffer + 4], 0
        jne .e820_next
        cmp byte [buffer + 3], 0x40
        jae .e820_next                  ; above RAM each board has its own
        push ebx
        DUMP 'E820', buffer, 20
        pop ebx
.e820_next:
        test ebx, ebx
        jnz .e820
.e820_end:

        ; -- INT 16h
        mov ah, 1
        ASK 0x16, 'no key', Z
        mov ah, 5
        mov cx, 0x1E61
        ASK 0x16, 'store', 0
        mov ah, 5
        mov cx, 0x47E0
        int 0x16
        mov ah, 5
        mov cx, 0xE00D
        int 0x16
        mov ah, 5
        mov cx, 0x47E0
        int 0x16
        mov ah, 1
        ASK 0x16, 'key', A | Z
        mov ah, 0
        ASK 0x16, 'read', A
        mov ah, 0
        ASK 0x16, 'read', A
        mov ah, 0
        ASK 0x16, 'read', A
        mov ah, 0x11
        ASK 0x16, 'extended key', A | Z
        mov ah, 0x10
        ASK 0x16, 'extended read', A
        mov ah, 0x11
        ASK 0x16, 'no extended key', Z
        mov ah, 2
        mov al, 0
        ASK 0x16, 'shifts', 0
        mov ah, 0x12
        ASK 0x16, 'extended shifts', A
        mov ah, 0x0A
        ASK 0x16, 'ID', B
        mov ax, 0x9200
        ASK 0x16, 'function 92', A

        ; -- INT 1Ah
        mov cx, 0x0001
        mov dx, 0x2345
        mov ah, 1
        ASK 0x1A, 'set ticks', F
        mov ah, 0
        int 0x1A
        call told
        db C | F, 'ticks', 0
        mov ah, 2
        ASK 0x1A, 'time', F
        mov ah, 4
        int 0x1A
        and cx, 0xF0F0
        mov cl, 0
        call told
        db C | F, 'date', 0
        mov ah, 3
        mov cx, 0x1234
        mov dx, 0x5600
        ASK 0x1A, 'set time', F
        mov ah, 2
        int 0x1A
        and dx, 0xF0FF
        call told
        db C | D | F, 'time', 0
        mov ah, 5
        mov cx, 0x2031
        mov dx, 0x0815
        ASK 0x1A, 'set date', F
        mov ah, 4
        ASK 0x1A, 'date', C | D | F
        mov ah, 0x77
        ASK 0x1A, 'function 77', F
        mov ax, 0xB101
        mov edi, 0
        int 0x1A
        jc .no_pci
        mov cx, 0
        mov al, 0
        call told
        db B | C | D | F, 'PCI', 0
        mov ax, 0xB102
        mov cx, 0x7000
        mov dx, 0x8086
        mov si, 0
        ASK 0x1A, 'PCI find device', A | B | F
        mov ax, 0xB102
        mov cx, 0x1111
        mov dx, 0x8086
        mov si, 0
        ASK 0x1A, 'PCI find none', F
        mov ax, 0xB103
        mov ecx, 0x010180
        mov si, 0
        ASK 0x1A, 'PCI find class', A | B | F
        mov ax, 0xB109
        mov bx, 0x0008
        mov di, 0
        ASK 0x1A, 'PCI read word', A | C | F
        mov ax, 0xB10A
        mov bx, 0x0009
        mov di, 8
        ASK 0x1A, 'PCI read dword', A | C | F
        mov ax, 0xB109
        mov bx, 0x0008
        mov di, 1
        ASK 0x1A, 'PCI read odd', F
        mov ax, 0xB108
        mov bx, 0x0009
        mov di, 4
        int 0x1A
        and cx, 1
        call told
        db C | F, 'PCI IDE command', 0
        mov ax, 0xB109
        mov bx, 0x0009
        mov di, 0x40
        int 0x1A
        and cx, 0x8000
        call told
        db C | F, 'PCI IDE timing', 0
.no_pci:

        ; -- INT 14h and 17h
        mov ax, 0x00E3
        mov dx, 0
        int 0x14
        and ax, 0x6000
        call told
        db A, 'serial', 0
        mov ax, 0x0141
        mov dx, 0
        int 0x14
        and ax, 0x8000
        call told
        db A, 'sent', 0
        mov ax, 0x0300
        mov dx, 3
        int 0x14
        mov dx, 0x3F8 + 3
        in al, dx
        mov ah, 0
        call told
        db A, 'line control', 0

        ; -- the data area
        DUMP 'memory size', 0x413, 2
        DUMP 'keyboard', 0x417, 2
        DUMP 'keyboard buffer', 0x480, 4
        DUMP 'disks', 0x475, 1
        DUMP 'keyboard mode', 0x496, 1
        mov ax, [0x40E]
        call told
        db A, 'EBDA segment', 0
        les si, [0x41 * 4]
        mov ax, [es:si]
        mov bl, [es:si + 2]
        mov cl, [es:si + 14]
        mov bh, 0
        mov ch, 0
        call told
        db A | B | C, 'disk table', 0
        les si, [0x1E * 4]
        mov ax, [es:si + 3]
        mov bx, [es:si + 8]
        call told
        db A | B, 'diskette table', 0
        push word 0
        pop es
        in al, 0x21
        mov ah, al
        in al, 0xA1
        and ax, 0x43 << 8 | 0x10
        call told
        db A, 'masks', 0
        sti
        mov eax, [0x46C]
.tick:  hlt
        cmp eax, [0x46C]
        je .tick
        call mark16
        db 10, 'a tick', 0
        mov al, 0
        jmp finish16

align 4
packet: db 16, 0
        dw 1, buffer, 0
        dq 0
align 16
gdt:    dq 0, 0
        dw 0xFFFF, 0, 0, 0
        dw 0xFFFF, 0, 0, 0
        dq 0, 0
        times 512 * (SECTORS + 1) - ($ - $$) db 0
