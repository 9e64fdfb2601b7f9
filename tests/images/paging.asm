; Page tables of one kind with every sort of entry, and registers that are seen in every column of `info registers`;
; then it loops with interrupts off. A ROM; KIND is 0 no paging, 1 32-bit, 2 PAE, 3 four levels.
%include "guest.inc"
