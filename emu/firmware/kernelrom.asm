; The kernel ROM: an option ROM that starts a kernel when the firmware's POST is over.
;
; Its init vector takes INT 19h, the bootstrap (BIOS Boot Specification 1.01, 6.5 and appendix D: how cards boot without a
; BIOS that knows PnP). INT 19h then reads the file opt/v2e/kernel of fw_cfg (QEMU's docs/specs/fw_cfg.rst), puts each
; piece of it where it says, and starts the kernel by its last record. Without the file it goes on to INT 18h, "no
; bootable device".
;
; The file, all numbers little-endian doublewords (emu/firmware/kernelrom.py writes it):
;   pieces    physical address, length (not 0), bytes
;   end       any address, length 0
;   last      kind; then of kind 1, Linux: segment of the setup code, SP
;                           of kind 2, multiboot: entry, boot information, map of memory, bytes of room for that
; Linux is entered in real mode as boot.rst's "Running the Kernel" says, at its setup code (segment + 20h):0. Multiboot
; (0.6.96, 3.2) is entered in flat 32-bit protected mode by the GDT in the page before the boot information, whose
; memory fields are filled in by what the firmware tells (INT 12h, INT 15h E820h, E801h, 88h).
;
; Assemble:  nasm -f bin -o emu/firmware/kernelrom.bin emu/firmware/kernelrom.asm
; The last byte is left 0 for the checksum. It may be tried under QEMU too:
;            qemu-system-x86_64 -option-rom FILE -fw_cfg name=opt/v2e/kernel,file=FILE

FW_CFG_SELECT   equ 0x510
FW_CFG_DATA     equ 0x511
ITEM_SIGNATURE  equ 0x00                ; "QEMU"
ITEM_DIRECTORY  equ 0x19                ; big-endian count; entries: size, key (words: key, reserved), 56 bytes of name
ENTRY_SIZE      equ 64
NAME_SIZE       equ 56
PORT_92         equ 0x92                ; bit 1: A20, bit 0: reset

WORK            equ 0x7000              ; what is read of records and of the directory; below it the stack
RECORD          equ WORK
ENTRY           equ WORK + 0x100
RANGE           equ WORK + 0x200        ; an answer of INT 15h E820h behind its size: what a multiboot map holds
STACK           equ WORK
HIGH            equ 0x100000

KIND_LINUX      equ 1
KIND_MULTIBOOT  equ 2
MULTIBOOT_MAGIC equ 0x2BADB002
INFO_FLAGS      equ 0                   ; of the boot information
INFO_LOWER      equ 4
INFO_UPPER      equ 8
INFO_MAP_LENGTH equ 44
HAS_MEMORY      equ 1 << 0
HAS_MAP         equ 1 << 6
CODE32          equ 0x10                ; in the GDT that the kernel is left with as well as in ours
DATA32          equ 0x18

bits 16
org 0
    db 0x55, 0xAA, SIZE / 512
    jmp near init
    db 0, "v2e kernel ROM", 0

init:
    push ds
    push word 0
    pop ds
    mov word [0x19 * 4], bootstrap
    mov [0x19 * 4 + 2], cs
    pop ds
    xor ax, ax                          ; PnP BIOS: no device of ours boots by BBS
    retf

bootstrap:
    cli
    xor ax, ax
    mov ss, ax
    mov esp, STACK
    mov ds, ax
    mov es, ax
    cld
    sti
    call find_file
    jnz none
    call a20_on
pieces:
    mov edi, RECORD
    mov ecx, 8
    call read
    mov edi, [RECORD]
    mov ecx, [RECORD + 4]
    test ecx, ecx
    jz last
    call read
    jmp pieces
last:
    mov edi, RECORD
    mov ecx, 20
    call read
    cmp byte [RECORD], KIND_MULTIBOOT
    je multiboot
    cmp byte [RECORD], KIND_LINUX
    jne none
    cli
    mov ax, [RECORD + 4]
    mov ss, ax
    mov sp, [RECORD + 8]
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    add ax, 0x20
    push ax
    push word 0
    retf

none:
    int 0x18
    jmp $

; ZF set: the file's item is selected and its first byte is next.
find_file:
    mov ax, ITEM_SIGNATURE
    mov ecx, 4
    call select
    cmp dword [ENTRY], 'QEMU'
    jne .end
    mov ax, ITEM_DIRECTORY
    mov ecx, 4
    call select
    mov ebx, [ENTRY]
    bswap ebx
.entry:
    sub ebx, 1
    jc .end                             ; CF set comes with ZF clear: EBX is FFFFFFFFh
    mov edi, ENTRY
    mov ecx, ENTRY_SIZE
    call read
    push cs
    pop ds
    mov si, file_name
    mov di, ENTRY + ENTRY_SIZE - NAME_SIZE
    mov cx, file_name_end - file_name
    repe cmpsb
    push es
    pop ds
    jne .entry
    mov ax, [ENTRY + 4]
    xchg al, ah
    mov dx, FW_CFG_SELECT
    out dx, ax
    cmp ax, ax
.end:
    ret

; Select item AX and read ECX bytes of it to ENTRY.
select:
    mov dx, FW_CFG_SELECT
    out dx, ax
    mov edi, ENTRY
    ; fall through

; Read ECX bytes of the selected item to physical address EDI, anywhere below 4 GiB: ES gets a limit of 4 GiB for it
; (SDM vol. 3A, 10.9.2: real mode keeps the caches that protected mode has loaded). Interrupts stay off meanwhile, as
; a handler may enter protected mode itself. Leaves ES 0.
read:
    pushf
    cli
    call load_gdt
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov dx, DATA32
    mov es, dx
    and al, ~1
    mov cr0, eax
    xor ax, ax
    mov es, ax                          ; base 0, the limit kept
    mov dx, FW_CFG_DATA
    a32 rep insb
    popf
    ret

; GDTR: our table. Changes EAX; the upper half of ESP is 0.
load_gdt:
    xor eax, eax
    mov ax, cs
    shl eax, 4
    add eax, gdt
    push eax
    push word gdt_end - gdt - 1
    o32 lgdt [esp]
    add sp, 6
    ret

; A20 by the BIOS, and by port 92h where that has not done it.
a20_on:
    mov ax, 0x2401
    int 0x15
    in al, PORT_92
    test al, 2
    jnz .end
    or al, 2
    and al, ~1
    out PORT_92, al
.end:
    ret

multiboot:
    mov eax, [RECORD + 8]
    shr eax, 4
    mov es, ax                          ; the boot information, at a paragraph
    int 0x12
    movzx eax, ax
    mov [es:INFO_LOWER], eax
    call upper_memory
    or dword [es:INFO_FLAGS], HAS_MEMORY
    call memory_map
    cli
    call load_gdt
    mov eax, cs
    shl eax, 4
    add eax, .flat
    push dword CODE32
    push eax
    mov ecx, [RECORD + 4]
    mov ebx, [RECORD + 8]
    lea edx, [ebx - 0x1000]             ; the page before the boot information: the GDT that the kernel is left with
    mov eax, cr0
    or al, 1
    mov cr0, eax
    o32 retf
bits 32
.flat:
    mov ax, DATA32
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    mov esp, edx
    push edx
    push word 0x1F
    lgdt [esp]
    mov esp, edx
    mov eax, MULTIBOOT_MAGIC
    jmp ecx
bits 16

; INFO_UPPER: KiB from 1 MiB on without a hole, by INT 15h E801h, else 88h.
upper_memory:
    xor cx, cx
    xor dx, dx
    mov ax, 0xE801
    int 0x15
    jc .old
    test cx, cx                         ; some answer in AX and BX, some in CX and DX
    jz .in_ax
    mov ax, cx
    mov bx, dx
.in_ax:
    movzx eax, ax                       ; KiB from 1 to 16 MiB
    cmp eax, 15 << 10
    jne .set
    movzx ebx, bx                       ; 64 KiB each from 16 MiB on
    shl ebx, 6
    add eax, ebx
    jmp .set
.old:
    mov ah, 0x88
    int 0x15
    movzx eax, ax
.set:
    mov [es:INFO_UPPER], eax
    ret

; The map of memory where the last record says, by INT 15h E820h; none, and its flag clear, where that does not answer.
memory_map:
    push es
    push word 0
    pop es
    mov edi, [RECORD + 12]
    xor ebx, ebx
    xor ebp, ebp                        ; bytes written
.next:
    mov eax, ebp
    add eax, 24
    cmp eax, [RECORD + 16]
    ja .end
    mov eax, 0xE820
    mov edx, 'PAMS'                     ; "SMAP", its first letter uppermost
    mov ecx, 20
    push edi
    mov di, RANGE + 4
    int 0x15
    pop edi
    jc .end
    cmp eax, 'PAMS'
    jne .end
    mov dword [RANGE], 20
    mov eax, edi
    shr eax, 4
    push es
    mov es, ax
    push di
    and di, 15
    mov si, RANGE
    mov cx, 24 / 2
    rep movsw
    pop di
    pop es
    add edi, 24
    add ebp, 24
    test ebx, ebx
    jnz .next
.end:
    pop es
    mov [es:INFO_MAP_LENGTH], ebp
    and dword [es:INFO_FLAGS], ~HAS_MAP
    test ebp, ebp
    jz .without
    or dword [es:INFO_FLAGS], HAS_MAP
.without:
    ret

file_name:
    db "opt/v2e/kernel", 0
file_name_end:

    align 8
gdt:                                    ; SDM vol. 3A, figure 3-8
    dq 0, 0
    dq 0x00CF9B000000FFFF               ; CODE32: flat
    dq 0x00CF93000000FFFF               ; DATA32: flat
gdt_end:

SIZE equ 1024
    times SIZE - ($ - $$) db 0
