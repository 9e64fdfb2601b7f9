; The 82077's commands that Bochs has not: verify, deleted data, whole tracks, scan, relative seek.
%include "probe.inc"
%include "probe_fdc.inc"

        FDC_SETUP
        CHECK 'reset'
        FDC_RESET
        COMMAND 0x13, 0, 0x17, 0
        COMMAND 0x03, 0xAF, 0x04
        CHECK 'recalibrated'
        COMMAND 0x07, 0
        INTERRUPT
        CHECK 'verify'                          ; no data to the host, EC clear: until TC of the channel's verify
        DMA 0x42, 512
        TRANSFER 0x56, 0, 0, 0, 4, 2, 4, 0x1B, 0xFF
        CHECK 'deleted'                         ; written; read shows CM, and stops; read with SK goes over
        DMA 0x4A, 512
        TRANSFER 0x49, 0, 0, 0, 5, 2, 5, 0x1B, 0xFF
        DMA 0x46, 1024
        TRANSFER READ, 0, 0, 0, 5, 2, 6, 0x1B, 0xFF
        DMA 0x46, 512
        TRANSFER 0x66, 0, 0, 0, 5, 2, 6, 0x1B, 0xFF
        SHOW_SECTOR 0
        CHECK 'read-deleted'
        DMA 0x46, 512
        TRANSFER 0x4C, 0, 0, 0, 5, 2, 5, 0x1B, 0xFF
        CHECK 'read-track'                      ; from the index, whatever the number
        DMA 0x46, 1024
        TRANSFER 0x42, 0, 0, 0, 1, 2, 2, 0x1B, 0xFF
        SHOW_SECTOR 0
        SHOW_SECTOR 512
        CHECK 'scan-equal'                      ; the same data: SH
        mov di, BUFFER
        call clear
        mov word [BUFFER], 0x0900
        mov word [BUFFER + 2], 0xAA55
        DMA 0x4A, 512
        TRANSFER 0x51, 0, 0, 0, 10, 2, 10, 0x1B, 1
        CHECK 'relative-seek'
        COMMAND 0xCF, 0, 3
        INTERRUPT
        COMMAND 0x8F, 0, 6
        INTERRUPT

        PROBE_DONE

        FDC_ROUTINES
        RESET_VECTOR start
