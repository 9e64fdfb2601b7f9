; COM1's 16550 asked by a guest, in loopback mode: registers, FIFOs and their trigger levels, timeout, overrun, break,
; word lengths, interrupt priorities, modem lines.
%include "probe.inc"

COM     equ 0x3F8
THR     equ COM
IER     equ COM + 1
FCR     equ COM + 2                     ; and IIR
LCR     equ COM + 3
MCR     equ COM + 4
LSR     equ COM + 5
MSR     equ COM + 6
SCR     equ COM + 7

%macro FRESH 0                          ; loopback, 115200 baud, 8 bits, no FIFO, nothing waiting
        call fresh
%endmacro
%macro SEND 1
        mov bl, %1
        call send
%endmacro
%macro SHOW_IIR 0
        SHOWB FCR
%endmacro
%macro SHOW_LSR 0
        SHOWB LSR
%endmacro

        call fresh
        CHECK 'registers'                       ; reserved bits of IER and MCR are 0
        OUTB MCR, 0
        OUTB IER, 0xFF
        SHOWB IER
        OUTB IER, 0
        OUTB MCR, 0xF0
        SHOWB MCR
        OUTB LCR, 0x7F
        SHOWB LCR
        OUTB LCR, 3
        OUTB SCR, 0xA5
        SHOWB SCR
        CHECK 'divisor-latch'
        OUTB LCR, 0x83
        OUTB COM, 0x34
        OUTB IER, 0x12
        SHOWB COM
        SHOWB IER
        OUTB LCR, 3
        SHOWB IER
        CHECK 'read-only'                       ; writes to MSR and LSR
        FRESH
        OUTB MSR, 0xF0
        SHOWB MSR
        SHOW_LSR
        CHECK 'idle'
        FRESH
        SHOW_IIR
        SHOW_LSR
        SHOWB MSR

        CHECK 'loopback'
        FRESH
        SEND 0x5A
        SHOW_LSR
        SHOWB COM
        SHOW_LSR
        SHOWB COM
        CHECK 'loopback-modem'                  ; RTS, DTR, OUT1, OUT2 are CTS, DSR, RI, DCD
%assign bit 0
%rep 4
        OUTB MCR, 0x10 | 1 << bit
        SHOW_MASKED MSR, 0xF0
%assign bit bit + 1
%endrep
        CHECK 'modem-delta'                     ; read clears
        OUTB MCR, 0x10
        INB MSR
        OUTB MCR, 0x1B
        SHOWB MSR
        SHOWB MSR
        CHECK 'modem-ring'                      ; only the end of RI is told
        OUTB MCR, 0x10
        INB MSR
        OUTB MCR, 0x14
        SHOWB MSR
        OUTB MCR, 0x10
        SHOWB MSR
        CHECK 'word-lengths'                    ; 5, 6, 7 bits: the rest is 0
%assign bits_ 0
%rep 3
        OUTB LCR, bits_
        SEND 0xFF
        SHOWB COM
%assign bits_ bits_ + 1
%endrep
        OUTB LCR, 3
        CHECK 'overrun'                         ; without FIFO the later byte stays
        FRESH
        SEND 0x11
        SEND 0x22
        SHOW_LSR
        SHOW_LSR
        SHOWB COM
        SHOW_LSR
        CHECK 'break'                           ; in loopback it comes back: a zero with BI
        FRESH
        OUTB LCR, 0x43
        PAUSE_US 300
        OUTB LCR, 0x03
        PAUSE_US 300
        INB LSR
        and al, 0x11
        call hex2_16
        SHOWB COM
        SHOW_MASKED LSR, 0x11

        CHECK 'thre-interrupt'                  ; enabling asks at once; reading IIR answers
        FRESH
        OUTB IER, 2
        SHOW_IIR
        SHOW_IIR
        OUTB IER, 0
        OUTB IER, 2
        SHOW_IIR
        CHECK 'thre-by-write'                   ; filling THR answers too
        FRESH
        OUTB IER, 2
        SEND 0x33
        SHOW_IIR
        SHOW_IIR
        CHECK 'data-interrupt'
        FRESH
        OUTB IER, 1
        SHOW_IIR
        SEND 0x44
        SHOW_IIR
        SHOW_IIR
        INB COM
        SHOW_IIR
        CHECK 'line-interrupt'                  ; before data, which is before modem status
        FRESH
        OUTB IER, 0x0D
        SEND 0x55
        SEND 0x66
        OUTB MCR, 0x11
        SHOW_IIR
        INB LSR
        SHOW_IIR
        INB COM
        SHOW_IIR
        INB MSR
        SHOW_IIR
        CHECK 'thre-before-modem'
        FRESH
        OUTB IER, 0x0A
        OUTB MCR, 0x11
        SHOW_IIR
        SHOW_IIR
        INB MSR
        SHOW_IIR
        CHECK 'disabled-shows-none'
        FRESH
        SEND 0x77
        OUTB IER, 0
        SHOW_IIR
        SHOW_LSR

        CHECK 'fifo-on'                         ; IIR shows it; bits 2 and 1 clear themselves
        FRESH
        OUTB FCR, 0x07
        SHOW_IIR
        CHECK 'fifo-order'
        SEND 1
        SEND 2
        SEND 3
        SHOWB COM
        SHOWB COM
        SHOW_LSR
        SHOWB COM
        SHOW_LSR
        CHECK 'fifo-reset'
        SEND 1
        SEND 2
        OUTB FCR, 0x03
        SHOW_LSR
        CHECK 'fifo-off-clears'
        SEND 1
        SEND 2
        OUTB FCR, 0
        SHOW_LSR
        SHOW_IIR
%assign trigger 0
%rep 4
        CHECK {'fifo-trigger-', '0' + trigger}  ; at 1, 4, 8, 14: the count at which data becomes available
        FRESH
        OUTB FCR, 0x07 | trigger << 6
        OUTB IER, 1
        call until_triggered
        SHOW_IIR
%assign trigger trigger + 1
%endrep
        CHECK 'fifo-below-trigger'              ; reading below the level ends the request
        INB COM
        SHOW_IIR
        CHECK 'fifo-timeout'                    ; four characters' time
        PAUSE_US 1000
        SHOW_IIR
        INB COM
        SHOW_IIR
        CHECK 'fifo-full'                       ; 16 bytes; the 17th waits in the shift register, the 18th is lost
        FRESH
        OUTB FCR, 0x07
        mov bh, 17
        call send_many
        SHOW_LSR
        mov bh, 2
        call send_many
        SHOW_LSR
        SHOW_LSR
        CHECK 'fifo-after-overrun'
        mov bh, 16
.drain:
        SHOWB COM
        dec bh
        jnz .drain
        SHOW_LSR
        SHOWB COM
        CHECK 'fifo-break'                      ; LSR tells of it when it is on top
        FRESH
        OUTB FCR, 0x07
        SEND 0x12
        OUTB LCR, 0x43
        PAUSE_US 300
        OUTB LCR, 0x03
        SHOW_MASKED LSR, 0x9F
        SHOWB COM
        SHOW_MASKED LSR, 0x9F
        SHOWB COM
        SHOW_MASKED LSR, 0x9F
        CHECK 'fifo-thre'                       ; with FIFO: empty when the FIFO is
        FRESH
        OUTB FCR, 0x07
        OUTB IER, 2
        SHOW_IIR
        SHOW_IIR
        SEND 0x99
        SHOW_IIR

        CHECK 'irq-line'                        ; OUT2 lets it through
        FRESH
        OUTB MCR, 0
        OUTB IER, 2
        OUTB 0x20, 0x0A
        SHOW_MASKED 0x20, 0x10
        OUTB MCR, 8
        OUTB 0x20, 0x0A
        SHOW_MASKED 0x20, 0x10
        OUTB IER, 0
        OUTB 0x20, 0x0A
        SHOW_MASKED 0x20, 0x10
        CHECK 'irq-in-loopback'                 ; its pin is inactive
        OUTB MCR, 0x18
        OUTB IER, 2
        OUTB 0x20, 0x0A
        SHOW_MASKED 0x20, 0x10
        OUTB IER, 0
        OUTB MCR, 0

        PROBE_DONE

fresh:
        OUTB IER, 0
        OUTB FCR, 1
        OUTB FCR, 0
        OUTB LCR, 0x83
        OUTB COM, 1
        OUTB IER, 0
        OUTB LCR, 3
        OUTB MCR, 0x10
        PAUSE_US 300
        INB COM
        INB LSR
        INB MSR
        INB FCR
        ret

send:                                   ; BL, and wait until it has arrived
        OUTB THR, bl
send_wait:
        PAUSE_US 200
        ret
send_many:                              ; BH bytes
        mov bl, 1
.next:  call send
        inc bl
        dec bh
        jnz .next
        ret
until_triggered:                        ; how many bytes it takes until IIR says so
        mov bl, 0
.next:  inc bl
        call send
        INB FCR
        and al, 0x0F
        cmp al, 4
        je .end
        cmp bl, 17
        jb .next
.end:   mov al, bl
        jmp hex2_16

        RESET_VECTOR start
