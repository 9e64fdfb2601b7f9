; A driver of a virtio block device: a 64 KiB ROM that finds 1AF4:1001 on PCI bus 0, drives it by the legacy and the
; modern interface, prints a line for each finding to port E9h and ends by the debug-exit port. Flat 32-bit code.
%include "flat32.inc"

bits 16
org 0

LEGACY  equ 0xc000              ; where BAR 0 is put
MODERN  equ 0xf1000000          ; where BAR 4 is put
RING    equ 0x10000             ; descriptors; the parts of the legacy layout for 256 entries behind them
AVAIL   equ RING + 0x1000
USED    equ RING + 0x2000
REQ     equ 0x20000             ; type, reserved, sector
STAT    equ 0x20100
TABLE   equ 0x21000
DATA    equ 0x30000
DEV     equ 0x4000              ; configuration address of the function
CAPS    equ 0x4100              ; offsets in BAR 4 by type, then the notify multiplier

start:
    TO_FLAT

bits 32
%define AT(x) ((x) + 0xf0000)

%macro show 1+                  ; text, then EAX, then a newline
    mov esi, AT(%%text)
    call line
    jmp %%over
%%text: db %1, 0
%%over:
%endmacro

%macro desc 5                   ; table, index, address, length, flags; the next one follows it
    mov dword [%1 + 16 * %2], %3
    mov dword [%1 + 16 * %2 + 4], 0
    mov dword [%1 + 16 * %2 + 8], %4
    mov dword [%1 + 16 * %2 + 12], (%5) | (%2 + 1) << 16
%endmacro

%macro request 2                ; type, sector
    mov dword [REQ], %1
    mov dword [REQ + 4], 0
    mov dword [REQ + 8], %2
    mov dword [REQ + 12], 0
    mov byte [STAT], 0xee
%endmacro

%include "line.inc"

conf:                           ; EBX: register; EAX from it
    mov eax, [DEV]
    or eax, ebx
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    ret

setconf:                        ; EBX: register, ECX into it
    mov eax, [DEV]
    or eax, ebx
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    mov eax, ecx
    out dx, eax
    ret

offer:                          ; make the chain at descriptor 0 available
    movzx eax, word [AVAIL + 2]
    and eax, 0xff
    mov word [AVAIL + 4 + 2 * eax], 0
    inc word [AVAIL + 2]
    ret

await:                          ; for the used ring to reach the available one, or for long enough
    mov ecx, 2000000
.next:
    mov ax, [USED + 2]
    cmp ax, [AVAIL + 2]
    je .end
    loop .next
.end:
    ret

legacy:                         ; offer, notify, wait; EAX the status byte
    call offer
    mov dx, LEGACY + 16
    xor eax, eax
    out dx, ax
    call await
    movzx eax, byte [STAT]
    ret

modern:
    call offer
    mov edi, [CAPS + 8]
    mov word [MODERN + edi], 0
    call await
    movzx eax, byte [STAT]
    ret

sum:                            ; EAX: of the words of 1 KiB of DATA
    xor eax, eax
    mov esi, DATA
    mov ecx, 256
.next:
    add eax, [esi]
    rol eax, 1
    add esi, 4
    loop .next
    ret

clear:                          ; rings and data
    xor eax, eax
    mov edi, RING
    mov ecx, 0x24000 / 4
    rep stosd
    ret

used:                           ; EAX: length in the last used entry
    movzx eax, word [USED + 2]
    dec eax
    and eax, 0xff
    mov eax, [USED + 8 + 8 * eax]
    ret

    FLAT_TABLES

flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x8000
    mov dword [DEV], 0x80000000
.find:
    xor ebx, ebx
    call conf
    cmp eax, 0x10011af4
    je .found
    add dword [DEV], 0x800
    cmp dword [DEV], 0x80010000
    jb .find
    show "none "
    jmp finish
.found:
    mov ebx, 8
    call conf
    show "class and revision "
    mov ebx, 0x2c
    call conf
    show "subsystem "
    mov ebx, 0x3c
    call conf
    and eax, 0xff00
    show "pin "
    mov ebx, 0x10
    mov ecx, 0xffffffff
    call setconf
    call conf
    show "BAR 0 "
    mov ecx, LEGACY
    call setconf
    mov ebx, 0x24
    xor ecx, ecx
    call setconf
    mov ebx, 0x20
    mov ecx, MODERN
    call setconf
    mov ebx, 4
    mov ecx, 7
    call setconf

    ; -- the legacy interface
    call clear
    mov dx, LEGACY + 18
    mov al, 0
    out dx, al
    in al, dx
    movzx eax, al
    show "legacy: status after reset "
    mov dx, LEGACY
    in eax, dx
    and eax, 0x38000274         ; what both offer
    show "legacy: features "
    mov dx, LEGACY + 20
    in eax, dx
    show "legacy: capacity "
    mov dx, LEGACY + 20 + 12
    in eax, dx
    show "legacy: most segments "
    mov dx, LEGACY + 20 + 16
    in eax, dx
    show "legacy: geometry "
    mov dx, LEGACY + 20 + 20
    in eax, dx
    show "legacy: sector size "
    mov dx, LEGACY + 18
    mov al, 3
    out dx, al
    mov dx, LEGACY + 4
    xor eax, eax
    out dx, eax
    mov dx, LEGACY + 14
    mov ax, 1
    out dx, ax
    mov dx, LEGACY + 12
    in ax, dx
    movzx eax, ax
    show "legacy: size of queue 1 "
    mov dx, LEGACY + 14
    xor eax, eax
    out dx, ax
    mov dx, LEGACY + 12
    in ax, dx
    movzx eax, ax
    show "legacy: size of queue 0 "
    mov dx, LEGACY + 8
    mov eax, RING >> 12
    out dx, eax
    in eax, dx
    show "legacy: page of queue 0 "
    mov dx, LEGACY + 18
    mov al, 7
    out dx, al

    request 0, 3
    desc RING, 0, REQ, 16, 1
    desc RING, 1, DATA, 1024, 3
    desc RING, 2, STAT, 1, 2
    call legacy
    show "legacy: read "
    call sum
    show "legacy: sum "
    call used
    show "legacy: written "
    mov dx, LEGACY + 19
    in al, dx
    movzx eax, al
    show "legacy: ISR "
    in al, dx
    movzx eax, al
    show "legacy: ISR again "

    mov dword [DATA], 0x12345678
    request 1, 6
    desc RING, 1, DATA, 512, 1
    call legacy
    show "legacy: write "
    call used
    show "legacy: written "
    request 0, 6
    desc RING, 1, DATA, 1024, 3
    mov dword [DATA], 0
    call legacy
    mov eax, [DATA]
    show "legacy: read back "

    request 0, 4031
    call legacy
    show "legacy: read beyond the end "
    call used
    show "legacy: written "
    request 1, 5000
    desc RING, 1, DATA, 512, 1
    call legacy
    show "legacy: write beyond the end "
    request 0, 1
    desc RING, 1, DATA, 100, 3
    call legacy
    show "legacy: no whole sector "
    request 4, 0
    desc RING, 0, REQ, 16, 1
    mov word [RING + 14], 2
    call legacy
    show "legacy: flush "
    request 0x77, 0
    call legacy
    show "legacy: unknown type "
    call used
    show "legacy: written "
    mov word [AVAIL], 1
    mov dx, LEGACY + 19
    in al, dx
    request 4, 0
    call legacy
    mov dx, LEGACY + 19
    in al, dx
    movzx eax, al
    show "legacy: ISR with interrupts off "
    mov word [AVAIL], 0

    ; header and data in one, cut at odd places
    request 0, 3
    desc RING, 0, REQ, 5, 1
    desc RING, 1, REQ + 5, 11, 1
    desc RING, 2, DATA, 511, 3
    desc RING, 3, DATA + 511, 514, 2
    call legacy
    call sum
    show "legacy: sum of pieces "
    movzx eax, byte [DATA + 1024]
    show "legacy: status behind the data "

    ; -- the modern interface
    mov dx, LEGACY + 18
    mov al, 0
    out dx, al
    call clear
    mov dword [CAPS + 20], 0
    mov ebx, 0x34
    call conf
    movzx ebx, al
.capability:
    test ebx, ebx
    jz .listed
    call conf
    mov ebp, eax
    cmp al, 9
    jne .other
    shr eax, 24
    cmp eax, 5
    ja .other
    mov edi, eax
    push ebx
    add ebx, 8
    call conf
    mov [CAPS + 4 * edi], eax
    pop ebx
    cmp edi, 2
    jne .counted
    push ebx
    add ebx, 16
    call conf
    mov [CAPS + 32], eax
    pop ebx
.counted:
    push ebx
    add ebx, 4
    call conf
    movzx eax, al
    pop ebx
    cmp edi, 5
    je .other
    show "modern: BAR of a structure "
.other:
    mov eax, ebp
    movzx ebx, ah
    jmp .capability
.listed:
    mov ebp, [CAPS + 4]
    add ebp, MODERN
    mov byte [ebp + 0x14], 0
    movzx eax, byte [ebp + 0x14]
    show "modern: status after reset "
    mov dword [ebp], 1
    mov eax, [ebp + 4]
    and eax, 1
    show "modern: VERSION_1 "
    movzx eax, word [ebp + 0x12]
    show "modern: queues "
    mov byte [ebp + 0x14], 3
    mov dword [ebp + 8], 1
    mov dword [ebp + 0xc], 1
    mov dword [ebp + 8], 0
    mov dword [ebp + 0xc], 0x30000000
    mov eax, [ebp + 0xc]
    show "modern: features "
    mov byte [ebp + 0x14], 0x0b
    movzx eax, byte [ebp + 0x14]
    show "modern: status "
    mov edi, [CAPS + 16]
    mov eax, [MODERN + edi]
    show "modern: capacity "
    mov word [ebp + 0x16], 0
    movzx eax, word [ebp + 0x18]
    show "modern: size of the queue "
    mov word [ebp + 0x18], 256
    mov dword [ebp + 0x20], RING
    mov dword [ebp + 0x24], 0
    mov dword [ebp + 0x28], AVAIL
    mov dword [ebp + 0x2c], 0
    mov dword [ebp + 0x30], USED
    mov dword [ebp + 0x34], 0
    mov word [ebp + 0x1c], 1
    movzx eax, word [ebp + 0x1c]
    show "modern: enabled "
    mov eax, [ebp + 0x28]
    show "modern: driver ring "
    mov byte [ebp + 0x14], 0x0f

    request 0, 3
    desc RING, 0, TABLE, 48, 4
    desc TABLE, 0, REQ, 16, 1
    desc TABLE, 1, DATA, 1024, 3
    desc TABLE, 2, STAT, 1, 2
    call modern
    show "modern: read "
    call sum
    show "modern: sum "
    mov edi, [CAPS + 12]
    movzx eax, byte [MODERN + edi]
    show "modern: ISR "
    movzx eax, byte [MODERN + edi]
    show "modern: ISR again "
    mov word [AVAIL + 4 + 512], 2    ; used_event: interrupt with the third
    call modern
    mov edi, [CAPS + 12]
    movzx eax, byte [MODERN + edi]
    show "modern: ISR after the second "
    call modern
    mov edi, [CAPS + 12]
    movzx eax, byte [MODERN + edi]
    show "modern: ISR after the third "

    ; through the window in configuration space
    desc RING, 0, REQ, 16, 1
    mov word [RING + 14], 0     ; a chain that loops
    mov word [AVAIL + 4 + 2 * 3], 0
    inc word [AVAIL + 2]
    mov edi, [CAPS + 8]
    mov word [MODERN + edi], 0
    mov ecx, 300000
.wait:
    test byte [ebp + 0x14], 0x40
    loopz .wait
    movzx eax, byte [ebp + 0x14]
    show "modern: status after a loop "
    mov edi, [CAPS + 12]
    movzx eax, byte [MODERN + edi]
    and eax, 2
    show "modern: ISR after a loop "
    movzx eax, word [USED + 2]
    show "modern: used "
    mov byte [ebp + 0x14], 0
    movzx eax, byte [ebp + 0x14]
    show "modern: status after reset "
    movzx eax, word [ebp + 0x1c]
    show "modern: enabled after reset "
finish:
    mov al, 0x10
    out 0xf4, al
    hlt

times 0xfff0-($-$$) db 0xf4
bits 16
    jmp 0xf000:start
times 0x10000-($-$$) db 0
