; The 8254 asked by a guest: counter 2, whose GATE and OUT are bits of port 61h, in all modes; latches, read-back, BCD,
; byte orders. With GATE low counts stand still, so they are exact.
%include "probe.inc"

%macro GATE 1
        in al, 0x61
        and al, 0xFC
        or al, %1
        out 0x61, al
%endmacro
%macro CONTROL 1                        ; of counter 2
        OUTB 0x43, 0x80 | (%1)
%endmacro
%macro COUNT 1                          ; LSB, MSB
        OUTB 0x42, (%1) & 0xFF
        OUTB 0x42, (%1) >> 8
%endmacro
%macro SETTLE 0                         ; some CLK pulses
        PAUSE_US 30
%endmacro
%macro SHOW_OUT 0
        in al, 0x61
        shr al, 5
        and al, 1
        call hex2_16
%endmacro
%macro SHOW_COUNT 0                     ; latched, MSB first
        OUTB 0x43, 0x80
        call show_count
%endmacro
%macro SHOW_STATUS 0
        OUTB 0x43, 0xE8
        SHOWB 0x42
%endmacro
; GATE low after the control word's mode, a count of %2
%macro HELD 2
        GATE 0
        CONTROL 0x30 | (%1) << 1
        COUNT %2
        SETTLE
%endmacro

; OUT and status after a control word: undefined count, known OUT
%assign mode 0
%rep 8
        CHECK {'control-word-', '0' + mode}
        GATE 0
        CONTROL 0x30 | mode << 1
        SHOW_OUT
        SHOW_STATUS
        CHECK {'loaded-', '0' + mode}   ; with GATE low: modes 1 and 5 wait for a trigger
        COUNT 0x1234
        SETTLE
        SHOW_OUT
        SHOW_STATUS
        CHECK {'half-count-', '0' + mode}       ; one byte of two changes nothing but mode 0's OUT
        OUTB 0x42, 0x55
        SETTLE
        SHOW_STATUS
        OUTB 0x42, 0x12
%assign mode mode + 1
%endrep

%assign mode 0
%rep 6
%if mode != 1 && mode != 5
        HELD mode, 0x1234
        CHECK {'held-', '0' + mode}
        SHOW_COUNT
        SETTLE
        SHOW_COUNT
        CHECK {'rewritten-', '0' + mode}        ; modes 0 and 4 take it at once, 2 and 3 at the end of the period
        COUNT 0x4321
        SETTLE
        SHOW_COUNT
        SHOW_STATUS
        CHECK {'gate-', '0' + mode}     ; counts, and stops again
        GATE 1
        SETTLE
        GATE 0
        SHOW_OUT
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        CHECK {'triggered-', '0' + mode}        ; GATE's rise starts modes 2 and 3 anew with the new count
        GATE 1
        SETTLE
        GATE 0
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        SHOW_STATUS
%endif
%assign mode mode + 1
%endrep

        CHECK 'odd-3'                           ; "initial count minus one"
        HELD 3, 0x1235
        SHOW_COUNT
        CHECK 'bcd'
        GATE 0
        CONTROL 0x31
        COUNT 0x9876
        SETTLE
        SHOW_COUNT
        SHOW_STATUS
        CHECK 'bcd-zero'                        ; 10000
        GATE 0
        CONTROL 0x31
        COUNT 0
        SETTLE
        GATE 1
        SETTLE
        GATE 0
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        and al, 0xF0
        call hex2_16
        CHECK 'lsb-only'
        GATE 0
        CONTROL 0x10
        OUTB 0x42, 0xA5
        SETTLE
        SHOWB 0x42
        SHOWB 0x42
        CHECK 'lsb-only-high'                   ; the other byte is zero
        OUTB 0x43, 0xD8
        SHOWB 0x42
        SHOWB 0x42
        CHECK 'msb-only'
        CONTROL 0x20
        OUTB 0x42, 0x5A
        SETTLE
        SHOWB 0x42
        SHOWB 0x42
        CHECK 'msb-only-latched'
        OUTB 0x43, 0x80
        SHOWB 0x42
        SHOWB 0x42

        CHECK 'latch-holds'                     ; and a second latch is ignored
        HELD 0, 0x1234
        OUTB 0x43, 0x80
        COUNT 0x5678
        SETTLE
        OUTB 0x43, 0x80
        call show_count
        call show_count
        CHECK 'latch-cleared-by-control'
        HELD 0, 0x1234
        OUTB 0x43, 0x80
        CONTROL 0x10
        OUTB 0x42, 0x77
        SETTLE
        SHOWB 0x42
        CHECK 'latch-interleaved'               ; "reads and writes of the same counter may be interleaved"
        HELD 0, 0x1234
        OUTB 0x43, 0x80
        SHOWB 0x42
        OUTB 0x42, 0xCD
        SHOWB 0x42
        OUTB 0x42, 0xAB
        SETTLE
        SHOW_COUNT
        CHECK 'read-unlatched'
        HELD 0, 0x1234
        call show_count
        CHECK 'status-then-count'
        HELD 0, 0x1234
        OUTB 0x43, 0xC8                         ; both
        SHOWB 0x42
        call show_count
        CHECK 'status-twice'                    ; the second is ignored while the first waits
        HELD 0, 0x1234
        OUTB 0x43, 0xE8
        CONTROL 0x34
        OUTB 0x43, 0xE8
        SHOWB 0x42
        CHECK 'count-behind-status'             ; latched before the status, read behind it
        HELD 0, 0x1234
        OUTB 0x43, 0xD8
        OUTB 0x43, 0xE8
        SHOWB 0x42
        call show_count
        CHECK 'read-back-of-none'
        OUTB 0x43, 0xC0
        call show_count
        CHECK 'read-back-of-two'                ; counters 0 and 2
        OUTB 0x43, 0x30
        HELD 0, 0x1234
        OUTB 0x43, 0xEA
        SHOWB 0x40
        SHOWB 0x42
        CHECK 'read-back-nothing'               ; neither count nor status
        OUTB 0x43, 0xF8
        call show_count
        CHECK 'control-port'
        SHOWB 0x43

        CHECK 'mode-0-end'                      ; OUT rises, and the count goes on below zero
        GATE 0
        CONTROL 0x30
        COUNT 4
        SETTLE
        SHOW_OUT
        GATE 1
        SETTLE
        GATE 0
        SHOW_OUT
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        CHECK 'mode-0-end-bcd'                  ; 9999 is what comes below
        GATE 0
        CONTROL 0x31
        COUNT 4
        SETTLE
        GATE 1
        SETTLE
        GATE 0
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        CHECK 'mode-0-first-byte'               ; stops the count, and lowers OUT
        GATE 1
        CONTROL 0x30
        COUNT 4
        SETTLE
        SHOW_OUT
        OUTB 0x42, 4
        SHOW_OUT
        SETTLE
        SHOW_OUT
        OUTB 0x42, 0
        SETTLE
        SHOW_OUT
        CHECK 'mode-1'                          ; low from the trigger to the end
        GATE 0
        CONTROL 0x32
        COUNT 0x2000
        SHOW_OUT
        GATE 1
        SETTLE
        SHOW_OUT
        SHOW_STATUS
        GATE 0                                  ; which is no end
        SETTLE
        SHOW_OUT
        AWAIT 0x61, 0x20, 0x20
        SHOW_OUT
        CHECK 'mode-1-retriggered'
        GATE 0
        CONTROL 0x32
        COUNT 0x4000
        GATE 1
        SETTLE
        GATE 0
        COUNT 0x0100                            ; from the next trigger on
        SETTLE
        SHOW_STATUS
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        GATE 1
        SETTLE
        SHOW_STATUS
        CHECK 'mode-2-gate'                     ; low sets OUT high
        GATE 1
        CONTROL 0x34
        COUNT 0x8000
        SETTLE
        SHOW_OUT
        GATE 0
        SHOW_OUT
        CHECK 'mode-3-out'                      ; both levels are seen
        GATE 1
        CONTROL 0x36
        COUNT 0x1000
        AWAIT 0x61, 0x20, 0
        AWAIT 0x61, 0x20, 0x20
        AWAIT 0x61, 0x20, 0
        GATE 0
        SHOW_OUT                                ; high at once
        CHECK 'mode-3-stops-high'
        SETTLE
        SHOW_OUT
        CHECK 'mode-4'                          ; high but for one pulse; then goes on counting
        GATE 1
        CONTROL 0x38
        COUNT 4
        SETTLE
        SHOW_OUT
        GATE 0
        OUTB 0x43, 0x80
        in al, 0x42
        in al, 0x42
        call hex2_16
        CHECK 'mode-5'                          ; the same from a trigger on
        GATE 0
        CONTROL 0x3A
        COUNT 0x0800
        SETTLE
        SHOW_STATUS
        GATE 1
        SETTLE
        SHOW_STATUS
        SHOW_OUT

        CHECK 'port-61-bits'
        OUTB 0x61, 0x0F
        SHOW_MASKED 0x61, 0xCF
        OUTB 0x61, 0xF0
        SHOW_MASKED 0x61, 0xCF

        PROBE_DONE

show_count:                                     ; two bytes as they come, MSB printed first
        in al, 0x42
        mov ah, al
        in al, 0x42
        xchg al, ah
        call hex4_16
        ret

        RESET_VECTOR start
