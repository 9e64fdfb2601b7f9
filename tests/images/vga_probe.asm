; The VGA asked by a guest: registers, write and read modes, latches, odd/even and chain-4, DAC sequences, Bochs VBE.
; ROM: QEMU -bios, v2e run --firmware. A line a check on port E9h: name, then what was read, in hex. Ends with debug
; exit 0. Sequencer and graphics registers are set up before each group, so that none depends on another.
%include "guest.inc"

bits 16
org 0
rom:
        GUEST_SERVICES 16

; %1 port of the index, %2 index, %3 value
%macro SET 3
        mov dx, %1
        mov ax, (%3) << 8 | (%2)
        out dx, ax
%endmacro
%define SR(index, value) 0x3C4, index, value
%define GR(index, value) 0x3CE, index, value
%define CR(index, value) 0x3D4, index, value

; print the register at index %2 of port %1
%macro SHOW 2
        mov dx, %1
        mov al, %2
        out dx, al
        inc dx
        in al, dx
        call hex2_16
%endmacro
; write a register and print what it has become
%macro BITS_OF 3
        SET %1, %2, %3
        SHOW %1, %2
%endmacro

; 64 KiB at A0000h, planes in sequence, write mode 0, everything plain
%macro PLANAR 0
        call planar
%endmacro
; the four planes at offset %1, by read map select; loads the latches
%macro SHOW_PLANES 1
        mov di, %1
        call show_planes
%endmacro
%macro PUT 2
        mov byte [es:%1], %2
%endmacro
; planes at %1 become %2 to %5
%macro PLANES 5
        SET SR(2, 1)
        PUT %1, %2
        SET SR(2, 2)
        PUT %1, %3
        SET SR(2, 4)
        PUT %1, %4
        SET SR(2, 8)
        PUT %1, %5
        SET SR(2, 15)
%endmacro
%macro LATCH 1
        mov al, [es:%1]
%endmacro
%macro VBE 2
        mov dx, 0x1CE
        mov ax, %1
        out dx, ax
        inc dx
        mov ax, %2
        out dx, ax
%endmacro
%macro SHOW_VBE 1
        mov dx, 0x1CE
        mov ax, %1
        out dx, ax
        inc dx
        in ax, dx
        call hex4_16
%endmacro

planar: SET SR(0, 3)
        SET SR(1, 1)
        SET SR(2, 15)
        SET SR(4, 6)
        SET GR(0, 0)
        SET GR(1, 0)
        SET GR(2, 0)
        SET GR(3, 0)
        SET GR(4, 0)
        SET GR(5, 0)
        SET GR(6, 5)
        SET GR(7, 15)
        SET GR(8, 0xFF)
        mov ax, 0xA000
        mov es, ax
        ret

show_planes:
        mov bl, 0
.next:  mov dx, 0x3CE
        mov al, 5
        mov ah, 0
        out dx, ax
        mov al, 4
        mov ah, bl
        out dx, ax
        mov al, [es:di]
        call hex2_16
        inc bl
        cmp bl, 4
        jne .next
        ret

start:  cli
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        mov dx, 0x3C2
        mov al, 0x67
        out dx, al

        TEST 16, 'misc '
        mov dx, 0x3CC
        in al, dx
        call hex2_16
        TEST 16, 'misc-mono '                   ; 3D4h moves to 3B4h
        mov dx, 0x3C2
        mov al, 0x66
        out dx, al
        SET 0x3B4, 0x0F, 0x5A
        SHOW 0x3B4, 0x0F
        mov dx, 0x3C2
        mov al, 0x67
        out dx, al
        SHOW 0x3D4, 0x0F

%assign index 1
%rep 4
        TEST 16, {'sequencer-', '0' + index, ' '}
        BITS_OF 0x3C4, index, 0xFF
        BITS_OF 0x3C4, index, 0
%assign index index + 1
%endrep
%assign index 0
%rep 9
        TEST 16, {'graphics-', '0' + index, ' '}
        BITS_OF 0x3CE, index, 0x5A
        BITS_OF 0x3CE, index, 0
%assign index index + 1
%endrep
        SET CR(0x11, 0)
        SET CR(3, 0x80)
%assign index 0
%rep 25
  %if index != 3 && index != 0x11
        TEST 16, {'crtc-', '0' + index / 10, '0' + index % 10, ' '}
        BITS_OF 0x3D4, index, 0x5A
        BITS_OF 0x3D4, index, 0
  %endif
%assign index index + 1
%endrep
        TEST 16, 'crtc-protected '              ; CR11 bit 7: 0 to 7 stay but for line compare
        SET CR(0, 0x5F)
        SET CR(7, 0x0F)
        SET CR(0x11, 0x80)
        SET CR(0, 0x11)
        SET CR(7, 0xF0)
        SHOW 0x3D4, 0
        SHOW 0x3D4, 7
        SET CR(0x11, 0)

        TEST 16, 'attribute-flip-flop '
        mov dx, 0x3DA
        in al, dx
        mov dx, 0x3C0
        mov al, 0x03                            ; index
        out dx, al
        mov al, 0x2A                            ; data
        out dx, al
        mov al, 0x04                            ; index again
        out dx, al
        mov dx, 0x3DA
        in al, dx                               ; the next is an index whatever came before
        mov dx, 0x3C0
        mov al, 0x03
        out dx, al
        mov dx, 0x3C1
        in al, dx
        call hex2_16
        in al, dx                               ; reading it does not change whose turn it is
        call hex2_16
        mov dx, 0x3C0
        mov al, 0x15
        out dx, al
        mov dx, 0x3C1
        in al, dx
        call hex2_16

        TEST 16, 'dac-write '                   ; three bytes a colour, then the next colour
        mov dx, 0x3C8
        mov al, 0xFE
        out dx, al
        inc dx
        mov al, 1
.dac:   out dx, al
        inc al
        cmp al, 10
        jne .dac
        mov dx, 0x3C7
        mov al, 0xFE
        out dx, al
        mov dx, 0x3C9
        mov cx, 9
.read:  in al, dx
        call hex2_16
        loop .read
        TEST 16, 'dac-state '                   ; 3 while reading, 0 while writing
        mov dx, 0x3C7
        mov al, 4
        out dx, al
        in al, dx
        and al, 3
        call hex2_16
        inc dx
        out dx, al
        dec dx
        in al, dx
        and al, 3
        call hex2_16
        TEST 16, 'dac-incomplete '              ; a colour changes with its third byte
        mov dx, 0x3C8
        mov al, 9
        out dx, al
        inc dx
        mov al, 1
        out dx, al
        out dx, al
        out dx, al
        dec dx
        mov al, 9
        out dx, al
        inc dx
        mov al, 0x3F
        out dx, al
        out dx, al
        mov dx, 0x3C7
        mov al, 9
        out dx, al
        mov dx, 0x3C9
        in al, dx
        call hex2_16
        in al, dx
        call hex2_16
        in al, dx
        call hex2_16
        TEST 16, 'dac-mask '
        mov dx, 0x3C6
        mov al, 0x0F
        out dx, al
        in al, dx
        call hex2_16
        mov al, 0xFF
        out dx, al

        PLANAR
        TEST 16, 'write-0 '
        SET SR(2, 5)
        PUT 0x10, 0xA5
        SHOW_PLANES 0x10
        PLANAR
        TEST 16, 'write-0-rotated '
        SET GR(3, 3)
        PUT 0x11, 0x05
        SHOW_PLANES 0x11
        PLANAR
        TEST 16, 'write-0-set-reset '
        SET GR(0, 2)
        SET GR(1, 3)
        PUT 0x12, 0x5A
        SHOW_PLANES 0x12
%assign function 1
%rep 3
        PLANAR
        TEST 16, {'write-0-function-', '0' + function, ' '}
        PLANES 0x20, 0x0F, 0x33, 0x55, 0xFF
        LATCH 0x20
        SET GR(3, function << 3)
        PUT 0x21, 0x3C
        SHOW_PLANES 0x21
%assign function function + 1
%endrep
        PLANAR
        TEST 16, 'write-0-bit-mask '
        PLANES 0x20, 0x11, 0x22, 0x44, 0x88
        LATCH 0x20
        SET GR(8, 0xF0)
        PUT 0x22, 0xAA
        SHOW_PLANES 0x22
        PLANAR
        TEST 16, 'write-0-all '                 ; set/reset, rotate, XOR and bit mask together
        PLANES 0x20, 0x11, 0x22, 0x44, 0x88
        LATCH 0x20
        SET GR(0, 9)
        SET GR(1, 12)
        SET GR(3, 0x1D)
        SET GR(8, 0x7E)
        SET SR(2, 14)
        PUT 0x23, 0xC3
        SHOW_PLANES 0x23
        PLANAR
        TEST 16, 'write-1 '
        PLANES 0x20, 0x12, 0x34, 0x56, 0x78
        SET GR(5, 1)
        SET GR(8, 0)
        LATCH 0x20
        PUT 0x24, 0xEE
        SHOW_PLANES 0x24
        PLANAR
        TEST 16, 'write-1-movsb '
        PLANES 0x20, 0x9A, 0xBC, 0xDE, 0xF0
        SET GR(5, 1)
        mov si, 0x20
        mov di, 0x25
        mov cx, 1
        cld
        es rep movsb
        SHOW_PLANES 0x25
        PLANAR
        TEST 16, 'write-2 '
        PLANES 0x20, 0x81, 0x81, 0x81, 0x81
        LATCH 0x20
        SET GR(5, 2)
        SET GR(8, 0x3C)
        PUT 0x26, 0xF5
        SHOW_PLANES 0x26
        PLANAR
        TEST 16, 'write-2-or '
        PLANES 0x20, 0x18, 0x18, 0, 0
        LATCH 0x20
        SET GR(5, 2)
        SET GR(3, 0x10)
        SET GR(8, 0x3C)
        PUT 0x27, 0x04
        SHOW_PLANES 0x27
        PLANAR
        TEST 16, 'write-3 '
        PLANES 0x20, 0xFF, 0xFF, 0, 0
        LATCH 0x20
        SET GR(0, 5)
        SET GR(3, 1)
        SET GR(5, 3)
        SET GR(8, 0x7F)
        PUT 0x28, 0x1E
        SHOW_PLANES 0x28
        PLANAR
        TEST 16, 'read-1 '
        PLANES 0x30, 0x55, 0x33, 0x0F, 0
        SET GR(5, 8)
        SET GR(2, 5)
        mov al, [es:0x30]
        call hex2_16
        SET GR(7, 5)
        mov al, [es:0x30]
        call hex2_16
        SET GR(7, 0)
        mov al, [es:0x30]
        call hex2_16
        PLANAR
        TEST 16, 'word-access '                 ; two bytes, the latches are those of the second
        PLANES 0x40, 1, 2, 3, 4
        PLANES 0x41, 5, 6, 7, 8
        mov ax, [es:0x40]
        call hex4_16
        SET GR(5, 1)
        PUT 0x42, 0
        SHOW_PLANES 0x42
        PLANAR
        TEST 16, 'dword-store '
        mov eax, 0x44332211
        mov [es:0x51], eax                      ; unaligned
        SHOW_PLANES 0x51
        SHOW_PLANES 0x54
        PLANAR
        TEST 16, 'read-modify-write '
        PLANES 0x60, 0x0F, 0x0F, 0x0F, 0x0F
        xor byte [es:0x60], 0xFF
        SHOW_PLANES 0x60
        PLANAR
        TEST 16, 'stosw '
        mov di, 0x70
        mov ax, 0xBEEF
        mov cx, 3
        cld
        rep stosw
        SHOW_PLANES 0x75
        PLANAR
        TEST 16, 'chain-4 '
        SET SR(4, 0x0E)
        mov dword [es:0x80], 0x44332211
        mov ax, [es:0x82]
        call hex4_16
        mov al, [es:0x81]
        call hex2_16
        SET SR(4, 6)
        SHOW_PLANES 0
        PLANAR
        TEST 16, 'chain-4-map-mask '
        SET SR(4, 0x0E)
        mov dword [es:0x84], 0
        SET SR(2, 6)
        mov dword [es:0x84], 0x88776655
        mov eax, [es:0x84]
        call hex8_16
        PLANAR
        TEST 16, 'odd-even '
        SET SR(2, 3)
        SET SR(4, 2)
        SET GR(5, 0x10)
        SET GR(6, 0x0E)
        mov ax, 0xB800
        mov es, ax
        mov dword [es:0], 0x1F421E41
        mov ax, [es:2]
        call hex4_16
        mov al, [es:1]
        call hex2_16
        TEST 16, 'odd-even-plane-0 '            ; characters only, as the first planar byte has it
        SET SR(4, 6)
        SET GR(5, 0)
        SET GR(6, 0x0C)
        SET GR(4, 0)
        mov al, [es:0]
        call hex2_16
        TEST 16, 'window-b0000 '
        PLANAR
        SET GR(6, 9)
        mov ax, 0xB000
        mov es, ax
        PUT 0, 0x77
        mov al, [es:0]
        call hex2_16
        TEST 16, 'outside '                     ; A0000h is nobody's now
        mov ax, 0xA000
        mov es, ax
        PUT 0x1000, 0x66
        mov al, [es:0x1000]
        call hex2_16
        PLANAR

        TEST 16, 'vbe-id '
        SHOW_VBE 0
        VBE 0, 0xB0C2
        SHOW_VBE 0
        VBE 0, 0xB0C5
        TEST 16, 'vbe-mode '                    ; 8 bits a pixel: Bochs without a window has no more
        VBE 4, 0
        VBE 1, 640
        VBE 2, 480
        VBE 3, 8
        VBE 4, 0x41
%assign index 1
%rep 3
        SHOW_VBE index
%assign index index + 1
%endrep
        SHOW_VBE 6
        TEST 16, 'vbe-cleared '
        mov ax, 0xA000
        mov es, ax
        mov eax, [es:0x80]
        call hex8_16
        TEST 16, 'vbe-bank '
        mov dword [es:0x100], 0x11223344
        VBE 5, 1
        mov dword [es:0x100], 0x55667788
        mov eax, [es:0x100]
        call hex8_16
        VBE 5, 0
        mov eax, [es:0x100]
        call hex8_16
        TEST 16, 'vbe-virtual '
        VBE 6, 1024
        VBE 8, 16
        VBE 9, 32
        SHOW_VBE 6
        SHOW_VBE 8
        SHOW_VBE 9
        TEST 16, 'vbe-kept '                    ; NOCLEARMEM
        VBE 4, 0
        VBE 4, 0x81
        VBE 5, 1
        mov eax, [es:0x100]
        call hex8_16
        TEST 16, 'vbe-bits '
        VBE 4, 2                                ; GETCAPS
        SHOW_VBE 3
        VBE 4, 0
        SHOW_VBE 3
        TEST 16, 'vbe-memory '                  ; in units of 64 KiB
        SHOW_VBE 10
        TEST 16, 'vbe-dac-8 '
        VBE 3, 8
        VBE 4, 0x21
        mov dx, 0x3C8
        mov al, 7
        out dx, al
        inc dx
        mov al, 0xFF
        out dx, al
        mov al, 0x81
        out dx, al
        mov al, 0x7E
        out dx, al
        mov dx, 0x3C7
        mov al, 7
        out dx, al
        mov dx, 0x3C9
        in al, dx
        call hex2_16
        in al, dx
        call hex2_16
        in al, dx
        call hex2_16
        VBE 4, 0
        TEST 16, 'done'
        mov al, 0
        call finish16

        RESET_VECTOR start
