; A multiboot image by the header's own addresses: prints on port E9h what it was handed, and ends by the exit port.
bits 32
org 0x100000
MAGIC equ 0x1badb002
FLAGS equ 0x10003
start:
    align 4
header: dd MAGIC, FLAGS, -(MAGIC + FLAGS), header, start, end, bss_end, entry
entry:
    mov esp, stack_end
    mov ebp, ebx
    mov edx, eax
    call hex
    mov al, ' '
    out 0xe9, al
    mov edx, [ebp]          ; flags: those we ask for, memory, command line, modules, map
    and edx, 0x4d
    call hex
    mov al, ' '
    out 0xe9, al
    mov edx, [ebp + 4]      ; lower memory, KiB
    and edx, ~7             ; firmwares keep a KiB or two
    call hex
    mov al, ' '
    out 0xe9, al
    mov edx, [ebp + 8]      ; upper memory, KiB
    shr edx, 9              ; a firmware keeps some of the last 512
    call hex
    mov al, ' '
    out 0xe9, al
    mov esi, [ebp + 16]     ; the command line, from its last blank on
    mov edi, esi
.find:
    lodsb
    cmp al, ' '
    jne .next
    mov edi, esi
.next:
    test al, al
    jnz .find
    mov esi, edi
    call text
    mov al, ' '
    out 0xe9, al
    mov ecx, [ebp + 20]     ; modules: the text of each
    mov ebx, [ebp + 24]
.module:
    jecxz .done
    mov esi, [ebx]
    call text
    add ebx, 16
    dec ecx
    jmp .module
.done:
    mov eax, [bss]          ; zeroed by the loader
    mov edx, eax
    call hex
    mov eax, cr0            ; protected, not paged
    and eax, 0x80000001
    mov edx, eax
    call hex
    mov al, 10
    out 0xe9, al
    mov al, 0
    out 0xf4, al
    cli
    hlt

text:
    lodsb
    test al, al
    jz .end
    out 0xe9, al
    jmp text
.end:
    ret

hex:                        ; EDX as eight digits
    push ecx
    mov ecx, 8
.digit:
    rol edx, 4
    mov al, dl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe .put
    add al, 7
.put:
    out 0xe9, al
    loop .digit
    pop ecx
    ret
end:
absolute end
    alignb 4
bss: resd 1
    resb 256
stack_end:
bss_end:
