; An ATA disk asked by a guest: reset, registers, commands with and without data, errors, power, 48-bit addresses. The
; disk is the first channel's device 0; each sector begins with its number and 55AAh.
%include "probe.inc"
%include "ata.inc"

        OUTB BASE + 6, 0xA0
        call not_busy
        CHECK 'software-reset'                  ; signature
        OUTB CONTROL, 6
        PAUSE_US 20
        OUTB CONTROL, 2
        call not_busy
        RESULT
        SHOWB BASE + 1
        SHOW_TASK
        CHECK 'diagnostic'
        TASK 0x55, 0x66, 0x77, 0x88, 0xA0
        COMMAND 0x90
        RESULT
        SHOWB BASE + 1
        SHOW_TASK
        CHECK 'registers'
        TASK 0x12, 0x34, 0x56, 0x78, 0xE9
        SHOW_TASK
        CHECK 'absent-device'                   ; device 0 answers 0 for its status
        OUTB BASE + 6, 0xB0
        SHOWB BASE + 7
        SHOWB CONTROL
        OUTB BASE + 6, 0xA0
        CHECK 'absent-command'                  ; goes nowhere
        OUTB BASE + 6, 0xB0
        OUTB BASE + 7, 0xEC
        PAUSE_US 1000
        SHOWB BASE + 7
        OUTB BASE + 6, 0xA0
        RESULT

        CHECK 'read-lba'
        TASK 1, 5, 0, 0, 0xE0
        COMMAND 0x20
        RESULT
        READ_BLOCK
        RESULT
        SHOW_TASK
        CHECK 'read-chs'                        ; cylinder 1, head 2, sector 3
        TASK 1, 3, 1, 0, 0xA2
        COMMAND 0x20
        RESULT
        READ_BLOCK
        RESULT
        CHECK 'read-three'
        TASK 3, 9, 0, 0, 0xE0
        COMMAND 0x20
        READ_BLOCK
        RESULT
        READ_BLOCK
        RESULT
        READ_BLOCK
        RESULT
        CHECK 'read-beyond-end'                 ; IDNF, with the address
        TASK 1, 0, 0, 0xFF, 0xEF
        COMMAND 0x20
        RESULT
        SHOW_MASKED BASE + 6, 0x0F
        CHECK 'read-across-end'                 ; the sectors that are there come
        TASK 2, 0xFF, 0x07, 0, 0xE0             ; the last of 2048
        COMMAND 0x20
        READ_BLOCK
        RESULT
        SHOWB BASE + 2
        SHOWB BASE + 3
        SHOWB BASE + 4
        CHECK 'read-chs-sector-0'
        TASK 1, 0, 0, 0, 0xA0
        COMMAND 0x20
        RESULT
        CHECK 'verify'
        TASK 4, 0, 0, 0, 0xE0
        COMMAND 0x40
        RESULT
        CHECK 'verify-beyond-end'
        TASK 4, 0xFE, 0x07, 0, 0xE0
        COMMAND 0x40
        RESULT
        CHECK 'write'
        TASK 1, 0x40, 0, 0, 0xE0
        COMMAND 0x30
        RESULT
        mov ax, 0x4321
        call write_block
        RESULT
        TASK 1, 0x40, 0, 0, 0xE0
        COMMAND 0x20
        READ_BLOCK
        CHECK 'write-beyond-end'
        TASK 1, 0, 0, 0xFF, 0xEF
        COMMAND 0x30
        RESULT
        call recover
        CHECK 'flush'
        COMMAND 0xE7
        RESULT

        CHECK 'multiple-unset'                  ; ABRT
        TASK 0, 0, 0, 0, 0xE0
        COMMAND 0xC6
        TASK 4, 0, 0, 0, 0xE0
        COMMAND 0xC4
        RESULT
        CHECK 'multiple'                        ; blocks of 4: 4, then 2
        TASK 4, 0, 0, 0, 0xE0
        COMMAND 0xC6
        RESULT
        TASK 6, 0x20, 0, 0, 0xE0
        COMMAND 0xC4
        READ_BLOCK
        READ_BLOCK
        READ_BLOCK
        READ_BLOCK
        READ_BLOCK
        READ_BLOCK
        RESULT
        CHECK 'multiple-odd'                    ; no power of two
        TASK 3, 0, 0, 0, 0xE0
        COMMAND 0xC6
        RESULT

        CHECK 'unknown-command'
        COMMAND 0x05
        RESULT
        CHECK 'nop'                             ; is aborted by definition
        COMMAND 0x00
        RESULT
        CHECK 'packet-command'                  ; a disk has none
        COMMAND 0xA0
        RESULT
        CHECK 'recalibrate'
        COMMAND 0x10
        RESULT
        CHECK 'seek'
        TASK 1, 5, 0, 0, 0xE0
        COMMAND 0x70
        RESULT
        CHECK 'initialize-parameters'           ; 8 heads of 32 sectors: 1/2/3 is another sector
        TASK 32, 0, 0, 0, 0xA7
        COMMAND 0x91
        RESULT
        TASK 1, 3, 1, 0, 0xA2
        COMMAND 0x20
        READ_BLOCK
        TASK 63, 0, 0, 0, 0xAF
        COMMAND 0x91
        CHECK 'features'
        OUTB BASE + 1, 0x02                     ; write cache on
        COMMAND 0xEF
        RESULT
        OUTB BASE + 1, 0x03                     ; PIO default
        OUTB BASE + 2, 0
        COMMAND 0xEF
        RESULT
        OUTB BASE + 1, 0x77                     ; there is none
        COMMAND 0xEF
        RESULT
        CHECK 'check-power'
        COMMAND 0xE5
        RESULT
        SHOWB BASE + 2
        CHECK 'standby'
        COMMAND 0xE0
        RESULT
        COMMAND 0xE5
        SHOWB BASE + 2
        CHECK 'idle'
        COMMAND 0xE1
        RESULT
        CHECK 'buffer'                          ; what is written is read
        COMMAND 0xE8
        RESULT
        mov ax, 0x9ABC
        call write_block
        COMMAND 0xE4
        READ_BLOCK
        CHECK 'native-max'
        TASK 0, 0, 0, 0, 0xE0
        COMMAND 0xF8
        RESULT
        SHOWB BASE + 3
        SHOWB BASE + 4
        SHOWB BASE + 5
        SHOW_MASKED BASE + 6, 0x0F
        CHECK 'native-max-ext'
        COMMAND 0x27
        RESULT
        SHOWB BASE + 3
        SHOWB BASE + 4
        SHOWB BASE + 5
        CHECK 'read-ext'
        TASK 0, 0, 0, 0, 0xE0                   ; the high bytes first
        TASK 1, 0x0C, 0, 0, 0xE0
        COMMAND 0x24
        RESULT
        READ_BLOCK
        CHECK 'high-order-bytes'                ; HOB shows what was written before
        TASK 0x11, 0x22, 0x33, 0x44, 0xE0
        TASK 0x55, 0x66, 0x77, 0x88, 0xE0
        OUTB CONTROL, 0x82
        SHOWB BASE + 2
        SHOWB BASE + 3
        SHOWB BASE + 4
        SHOWB BASE + 5
        OUTB BASE + 2, 0                        ; a write ends it
        SHOWB BASE + 3
        OUTB CONTROL, 2
        CHECK 'verify-ext-beyond-end'
        TASK 0, 0, 1, 0, 0xE0
        TASK 1, 0, 0, 0, 0xE0
        COMMAND 0x42
        RESULT

        CHECK 'interrupt'                       ; with nIEN clear: IRQ 14; cleared by the status, not by the other
        OUTB CONTROL, 0
        OUTB 0xA0, 0x0A
        SHOW_MASKED 0xA0, 0x40
        TASK 1, 5, 0, 0, 0xE0
        COMMAND 0x40
        SHOW_MASKED 0xA0, 0x40
        INB CONTROL
        SHOW_MASKED 0xA0, 0x40
        INB BASE + 7
        SHOW_MASKED 0xA0, 0x40
        CHECK 'data-without-drq'                ; reads nothing
        mov dx, BASE
        in ax, dx
        RESULT

        PROBE_DONE

        ATA_ROUTINES
        RESET_VECTOR start
