; A boot sector of which one source line is a loop: what `next` is timed on. As a flat binary it boots, as ELF with
; DWARF it gives gdb its lines.
        bits 16
%ifidn __OUTPUT_FORMAT__, bin
        org 0x7c00
%else
        section .text
        global _start
%endif
_start: cli
        mov cx, TURNS
again:  loop again
done:   jmp done
