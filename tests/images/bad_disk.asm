; A disk whose host fails, as the guest sees it: reads sectors 14 to 17 one way and the other, writes them, flushes.
; Prints what probe_ata does: status without DSC, error; then count and address where a command has failed.
%include "probe.inc"
%include "ata.inc"

%macro STOPPED 0
        SHOWB BASE + 2
        SHOWB BASE + 3
%endmacro
%macro READ_SECTORS 1
%rep %1
        READ_BLOCK
%endrep
%endmacro

        OUTB CONTROL, 2
        TASK 4, 14, 0, 0, 0xE0
        CHECK 'read'                            ; sector after sector
        COMMAND 0x20
        READ_SECTORS 4
        RESULT
        STOPPED
        CHECK 'verify'
        TASK 4, 14, 0, 0, 0xE0
        COMMAND 0x40
        RESULT
        STOPPED
        CHECK 'write'
        TASK 4, 14, 0, 0, 0xE0
        COMMAND 0x30
        call write_four
        RESULT
        STOPPED
        CHECK 'write-multiple'                  ; four in a block
        TASK 4, 0, 0, 0, 0xE0
        COMMAND 0xC6
        TASK 4, 14, 0, 0, 0xE0
        COMMAND 0xC5
        call write_four
        RESULT
        STOPPED
        CHECK 'flush'
        COMMAND 0xE7
        RESULT
        CHECK 'write-elsewhere'                 ; the drive goes on
        TASK 1, 5, 0, 0, 0xE0
        COMMAND 0x30
        mov ax, 0x5555
        call write_block
        RESULT
        CHECK 'beyond-end'
        TASK 1, 0, 0, 1, 0xE0
        COMMAND 0x30
        RESULT
        call recover

        PROBE_DONE

write_four:                             ; as long as the drive takes data
        mov bl, 4
.next:  INB CONTROL
        test al, 8
        jz .end
        mov ax, 0x7777
        mov cx, 256
        mov dx, BASE
.words: out dx, ax
        loop .words
        call not_busy
        dec bl
        jnz .next
.end:   ret

        ATA_ROUTINES
        RESET_VECTOR start
