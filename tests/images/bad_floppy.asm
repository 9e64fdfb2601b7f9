; A diskette whose host fails, and DMA to where no memory is, as the guest sees them: results of the 82077's commands.
%include "probe.inc"
%include "probe_fdc.inc"

        FDC_SETUP
        CHECK 'reset'
        FDC_RESET
        COMMAND 0x13, 0, 0x17, 0
        COMMAND 0x07, 0
        INTERRUPT
        CHECK 'read'                            ; sectors 15 and 16 of the image
        DMA 0x46, 1024
        TRANSFER READ, 0, 0, 0, 16, 2, 18, 0x1B, 0xFF
        CHECK 'write'                           ; the same
        DMA 0x4A, 1024
        TRANSFER 0x45, 0, 0, 0, 16, 2, 18, 0x1B, 0xFF
        CHECK 'write-elsewhere'
        DMA 0x4A, 512
        TRANSFER 0x45, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF
        CHECK 'unmapped'                        ; a sector to 15 MiB and back
        OUTB 0x81, 0xF0
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 3, 2, 18, 0x1B, 0xFF
        DMA 0x4A, 512
        TRANSFER 0x45, 0, 0, 0, 3, 2, 18, 0x1B, 0xFF
        OUTB 0x81, 0
        DMA 0x46, 512
        TRANSFER READ, 0, 0, 0, 3, 2, 18, 0x1B, 0xFF
        SHOW_SECTOR 0

        PROBE_DONE

        FDC_ROUTINES
        RESET_VECTOR start
