; The MC146818 asked by a guest: registers A to D, time in both formats, alarms, the three interrupts and their flags,
; RAM. It sets the time itself.
%include "probe.inc"

%macro SHOW_CMOS 1
        SHOW_INDEXED 0x70, %1
%endmacro
%macro CMOS 2
        INDEXED 0x70, %1, %2
%endmacro
%macro FORMAT 1                         ; register B, with SET
        CMOS 0x0B, 0x80 | (%1)
%endmacro
%macro TIME 6                           ; year, month, day, hour, minute, second as they are written
        CMOS 9, %1
        CMOS 8, %2
        CMOS 7, %3
        CMOS 4, %4
        CMOS 2, %5
        CMOS 0, %6
%endmacro
%macro SHOW_TIME 0
        call show_time
%endmacro
%macro RUN 1                            ; without SET until the next update has ended
        CMOS 0x0B, %1
        call next_second
%endmacro

        CMOS 0x0A, 0x26
        CHECK 'registers'
        CMOS 0x0B, 0x82
        SHOW_MASKED 0x71, 0
        OUTB 0x70, 0x0A
        SHOW_MASKED 0x71, 0x7F
        SHOW_CMOS 0x0B
        SHOW_CMOS 0x0D
        CHECK 'read-only'                       ; C and D
        CMOS 0x0D, 0
        SHOW_CMOS 0x0D
        OUTB 0x70, 0x0C
        in al, 0x71
        CMOS 0x0C, 0xFF
        SHOW_CMOS 0x0C
        CHECK 'set-clears-uie'
        CMOS 0x0B, 0x12
        CMOS 0x0B, 0x92
        SHOW_CMOS 0x0B
        CHECK 'set-holds-time'
        FORMAT 2
        TIME 0x20, 0x12, 0x31, 0x23, 0x59, 0x58
        SHOW_TIME
        OUTB 0x70, 0x0A
        SHOW_MASKED 0x71, 0x80                  ; no UIP
        CHECK 'carry'                           ; to the next year
        TIME 0x19, 0x12, 0x31, 0x23, 0x59, 0x59
        CMOS 6, 7
        RUN 2
        SHOW_TIME
        SHOW_CMOS 6
        CHECK 'leap-year'
        FORMAT 2
        TIME 0x20, 0x02, 0x28, 0x23, 0x59, 0x59
        RUN 2
        SHOW_TIME
        CHECK 'no-leap-year'
        FORMAT 2
        TIME 0x21, 0x02, 0x28, 0x23, 0x59, 0x59
        RUN 2
        SHOW_TIME
        CHECK 'thirty-days'
        FORMAT 2
        TIME 0x21, 0x04, 0x30, 0x23, 0x59, 0x59
        RUN 2
        SHOW_TIME
        CHECK 'twelve-hours'                    ; noon, midnight
        FORMAT 0
        TIME 0x21, 0x05, 0x01, 0x11, 0x59, 0x59
        RUN 0
        SHOW_TIME
        FORMAT 0
        TIME 0x21, 0x05, 0x01, 0x92, 0x59, 0x59
        RUN 0
        SHOW_TIME
        FORMAT 0
        TIME 0x21, 0x05, 0x01, 0x91, 0x59, 0x59
        RUN 0
        SHOW_TIME
        CHECK 'binary'
        FORMAT 6
        TIME 21, 10, 31, 19, 59, 59
        RUN 6
        SHOW_TIME
        CHECK 'binary-twelve'
        FORMAT 4
        TIME 21, 10, 31, 0x8B, 59, 59
        RUN 4
        SHOW_TIME

        CHECK 'update-flag'                     ; set with the second, cleared by reading, IRQF only when enabled
        FORMAT 2
        CMOS 0x0B, 2
        OUTB 0x70, 0x0C
        in al, 0x71
        call next_second
        SHOW_MASKED 0x71, 0
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0x90
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0x90
        CHECK 'update-interrupt'
        CMOS 0x0B, 0x12
        OUTB 0x70, 0x0C
        in al, 0x71
        call next_second
        OUTB 0xA0, 0x0A
        SHOW_MASKED 0xA0, 1
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0x90
        OUTB 0xA0, 0x0A
        SHOW_MASKED 0xA0, 1
        CHECK 'periodic-flag'                   ; comes without its enable bit
        CMOS 0x0B, 2
        OUTB 0x70, 0x0C
        in al, 0x71
        PAUSE_US 2500
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xC0
        CHECK 'periodic-interrupt'
        CMOS 0x0B, 0x42
        PAUSE_US 2500
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xC0
        CHECK 'periodic-off'                    ; rate 0
        CMOS 0x0A, 0x20
        OUTB 0x70, 0x0C
        in al, 0x71
        PAUSE_US 5000
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xC0
        CMOS 0x0A, 0x26
        CMOS 0x0B, 2
        CHECK 'alarm'                           ; at 12:00:01
        FORMAT 2
        TIME 0x21, 0x05, 0x01, 0x11, 0x59, 0x59
        CMOS 5, 0x12
        CMOS 3, 0
        CMOS 1, 1
        OUTB 0x70, 0x0C
        in al, 0x71
        RUN 0x22
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xA0
        call next_second
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xA0
        CHECK 'alarm-any'                       ; C0h to FFh match all
        FORMAT 2
        TIME 0x21, 0x05, 0x01, 0x11, 0x30, 0x10
        CMOS 5, 0xFF
        CMOS 3, 0xC0
        CMOS 1, 0x11
        OUTB 0x70, 0x0C
        in al, 0x71
        RUN 0x22
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xA0
        CHECK 'alarm-without-enable'            ; the flag comes, no interrupt
        FORMAT 2
        CMOS 1, 0xC0
        OUTB 0x70, 0x0C
        in al, 0x71
        RUN 2
        OUTB 0x70, 0x0C
        SHOW_MASKED 0x71, 0xA0
        CHECK 'divider-held'                    ; 11x: the time stands
        CMOS 0x0A, 0x76
        CMOS 0x0B, 2
        OUTB 0x70, 0
        in al, 0x71
        mov bl, al
        SLEEP_5MS 240
        OUTB 0x70, 0
        in al, 0x71
        cmp al, bl
        sete al
        call hex2_16
        CHECK 'divider-released'                ; the first update half a second later
        CMOS 0x0A, 0x26
        OUTB 0x70, 0
        in al, 0x71
        mov bl, al
        SLEEP_5MS 80
        in al, 0x71
        cmp al, bl
        sete al
        call hex2_16
        SLEEP_5MS 40
        in al, 0x71
        cmp al, bl
        sete al
        call hex2_16
        CHECK 'ram'
        CMOS 0x40, 0x5A
        CMOS 0x7F, 0xA5
        SHOW_CMOS 0x40
        SHOW_CMOS 0x7F
        CHECK 'nmi-bit'                         ; is no part of the index
        CMOS 0xC0, 0x66
        SHOW_CMOS 0x40
        CHECK 'index-port'                      ; write-only
        SHOWB 0x70
        CHECK 'index-stays'                     ; behind an access
        OUTB 0x70, 0x7F
        SHOWB 0x71
        SHOWB 0x71

        PROBE_DONE

show_time:
        mov bl, 9
.next:  mov al, bl
        out 0x70, al
        in al, 0x71
        call hex2_16
        dec bl
        cmp bl, 6
        jne .more
        mov bl, 4
.more:  cmp bl, 3
        jne .two
        mov bl, 2
.two:   cmp bl, 1
        jne .end
        mov bl, 0
.end:   cmp bl, 0xFF
        jne .next
        ret
next_second:                            ; until register 0 has changed
        mov bh, 255
        OUTB 0x70, 0
        in al, 0x71
        mov bl, al
.next:  SLEEP_5MS 1
        in al, 0x71
        cmp al, bl
        jne .end
        dec bh
        jnz .next
.end:   ret

        RESET_VECTOR start
