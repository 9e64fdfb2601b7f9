; The 8042, its keyboard and its mouse asked by a guest: controller commands, status bits, A20 and output port, scan code
; sets, keyboard and mouse commands, streams of answers.
%include "probe.inc"

%macro COMMAND 1                        ; to the controller
        mov bl, %1
        call command
%endmacro
%macro DATA 1                           ; to port 60h
        mov bl, %1
        call data
%endmacro
%macro AUX 1                            ; to the mouse
        COMMAND 0xD4
        DATA %1
%endmacro
; What the output buffer has given within some ms after the last byte: each byte as status AND 21h and the byte
%macro ANSWERS 0
        call answers
%endmacro
%macro SHOW_BYTES 0                     ; the same without the status
        call bytes_only
%endmacro
%macro SHOW_STATUS 1
        SHOW_MASKED 0x64, %1
%endmacro

        COMMAND 0xAE                            ; what they have to say since power-on
        COMMAND 0xA8
        call drain
        COMMAND 0xAD
        COMMAND 0xA7
        call drain
        CHECK 'self-test'                       ; 55h, and the system flag
        COMMAND 0xAA
        SHOW_BYTES
        SHOW_STATUS 0x04
        CHECK 'interface-tests'
        COMMAND 0xAB
        SHOW_BYTES
        COMMAND 0xA9
        SHOW_BYTES
        CHECK 'command-byte'
        COMMAND 0x60
        DATA 0x70
        COMMAND 0x20
        ANSWERS
        CHECK 'interfaces-off'                  ; by AD and A7; on by AE and A8
        COMMAND 0x60
        DATA 0
        COMMAND 0xAD
        COMMAND 0x20
        SHOW_BYTES
        COMMAND 0xA7
        COMMAND 0x20
        SHOW_BYTES
        COMMAND 0xAE
        COMMAND 0xA8
        COMMAND 0x20
        SHOW_BYTES
        CHECK 'command-byte-aliases'            ; 21h to 3Fh and 61h to 7Fh are the RAM behind
        COMMAND 0x60
        DATA 0x30
        COMMAND 0x65
        DATA 0x5A
        COMMAND 0x25
        SHOW_BYTES
        CHECK 'write-output-buffers'            ; D2h as the keyboard's, D3h as the mouse's
        COMMAND 0xD2
        DATA 0x12
        ANSWERS
        COMMAND 0xD3
        DATA 0x34
        ANSWERS
        CHECK 'status-a2'                       ; which port was written last
        COMMAND 0xA7
        SHOW_STATUS 0x08
        COMMAND 0x60
        DATA 0x30
        SHOW_STATUS 0x08
        CHECK 'output-port'                     ; A20 on, no reset
        COMMAND 0xD0
        call get_byte
        and al, 0x03
        call hex2_16
        CHECK 'a20-off'
        COMMAND 0xD1
        DATA 0xDD
        call show_a20
        COMMAND 0xD0
        call get_byte
        and al, 0x03
        call hex2_16
        COMMAND 0xD1
        DATA 0xDF
        call show_a20
        CHECK 'a20-port-92'                     ; either opens the gate
        OUTB 0x92, 0
        call show_a20
        COMMAND 0xD1
        DATA 0xDD
        call show_a20
        OUTB 0x92, 2
        call show_a20
        SHOW_MASKED 0x92, 0x03
        OUTB 0x92, 0
        CHECK 'a20-by-commands'                 ; DDh, DFh
        COMMAND 0xDD
        call show_a20
        COMMAND 0xDF
        call show_a20
        CHECK 'unknown-command'                 ; is none: nothing comes
        COMMAND 0x90
        SHOW_BYTES
        CHECK 'pulse-nothing'                   ; FFh
        COMMAND 0xFF
        SHOW_BYTES

        ; -- the keyboard, without translation
        COMMAND 0x60
        DATA 0x20
        call drain
        CHECK 'kbd-reset'
        DATA 0xFF
        ANSWERS
        CHECK 'kbd-echo'
        DATA 0xEE
        SHOW_BYTES
        CHECK 'kbd-id'
        DATA 0xF2
        SHOW_BYTES
        CHECK 'kbd-set'
        DATA 0xF0
        SHOW_BYTES
        DATA 0
        SHOW_BYTES
        CHECK 'kbd-set-3'
        DATA 0xF0
        SHOW_BYTES
        DATA 3
        SHOW_BYTES
        DATA 0xF0
        SHOW_BYTES
        DATA 0
        SHOW_BYTES
        CHECK 'kbd-set-4'                       ; there is none
        DATA 0xF0
        SHOW_BYTES
        DATA 4
        SHOW_BYTES
        CHECK 'kbd-defaults'                    ; set 2 again
        DATA 0xF6
        SHOW_BYTES
        DATA 0xF0
        SHOW_BYTES
        DATA 0
        SHOW_BYTES
        CHECK 'kbd-leds'
        DATA 0xED
        SHOW_BYTES
        DATA 7
        SHOW_BYTES
        CHECK 'kbd-command-for-option'          ; a command in the place of an option is taken as one
        DATA 0xED
        SHOW_BYTES
        DATA 0xEE
        SHOW_BYTES
        CHECK 'kbd-rate'
        DATA 0xF3
        SHOW_BYTES
        DATA 0x20
        SHOW_BYTES
        CHECK 'kbd-disable-enable'
        DATA 0xF5
        SHOW_BYTES
        DATA 0xF4
        SHOW_BYTES
        CHECK 'kbd-unknown'
        DATA 0xEF
        SHOW_BYTES
        CHECK 'kbd-key-types'                   ; F7h to FAh
        DATA 0xF7
        SHOW_BYTES
        DATA 0xFA
        SHOW_BYTES
        CHECK 'kbd-key-type'                    ; FBh: keys follow until a command
        DATA 0xFB
        SHOW_BYTES
        DATA 0x1C
        SHOW_BYTES
        DATA 0xF4
        SHOW_BYTES
        CHECK 'kbd-translated'                  ; ABh 83h in set 1
        COMMAND 0x60
        DATA 0x60
        DATA 0xF2
        SHOW_BYTES
        COMMAND 0x60
        DATA 0x20
        CHECK 'kbd-inhibited'                   ; sending to it enables its interface
        COMMAND 0xAD
        DATA 0xEE
        SHOW_BYTES
        COMMAND 0x20
        call get_byte
        and al, 0x10
        call hex2_16

        ; -- the mouse
        COMMAND 0x60
        DATA 0x10
        call drain
        CHECK 'aux-reset'
        AUX 0xFF
        ANSWERS
        CHECK 'aux-id'
        AUX 0xF2
        ANSWERS
        CHECK 'aux-status'                      ; after reset: stream, off, 1:1, 4/mm, 100/s
        AUX 0xE9
        SHOW_BYTES
        CHECK 'aux-settings'
        AUX 0xE8
        SHOW_BYTES
        AUX 3
        SHOW_BYTES
        AUX 0xF3
        SHOW_BYTES
        AUX 40
        SHOW_BYTES
        AUX 0xE7
        SHOW_BYTES
        AUX 0xF4
        SHOW_BYTES
        AUX 0xE9
        SHOW_BYTES
        CHECK 'aux-remote'
        AUX 0xF0
        SHOW_BYTES
        AUX 0xEB
        SHOW_BYTES
        AUX 0xE9
        SHOW_BYTES
        CHECK 'aux-defaults'
        AUX 0xF6
        SHOW_BYTES
        AUX 0xE9
        SHOW_BYTES
        CHECK 'aux-wrap'
        AUX 0xEE
        SHOW_BYTES
        AUX 0x5A
        SHOW_BYTES
        AUX 0xF2
        SHOW_BYTES
        AUX 0xEC
        SHOW_BYTES
        AUX 0xF2
        SHOW_BYTES
        CHECK 'aux-stream-mode'                 ; EAh
        AUX 0xEA
        SHOW_BYTES
        CHECK 'aux-unknown'
        AUX 0xE5
        SHOW_BYTES
        CHECK 'aux-wheel'
        mov si, knock_wheel
        call knock
        AUX 0xF2
        SHOW_BYTES
        AUX 0xEB
        SHOW_BYTES
        CHECK 'aux-five'
        mov si, knock_five
        call knock
        AUX 0xF2
        SHOW_BYTES
        AUX 0xFF
        SHOW_BYTES
        AUX 0xF2
        SHOW_BYTES

        PROBE_DONE

knock_wheel: db 0xF3, 200, 0xF3, 100, 0xF3, 80, 0
knock_five: db 0xF3, 200, 0xF3, 200, 0xF3, 80, 0
knock:  mov al, [cs:si]
        inc si
        cmp al, 0
        je .end
        mov ah, al
        COMMAND 0xD4
        mov bl, ah
        call data
        call get_byte
        jmp knock
.end:   ret

command:
        push ax
        AWAIT 0x64, 2, 0
        OUTB 0x64, bl
        AWAIT 0x64, 2, 0
        pop ax
        ret
data:
        push ax
        AWAIT 0x64, 2, 0
        OUTB 0x60, bl
        AWAIT 0x64, 2, 0
        pop ax
        ret
get_byte:
        AWAIT 0x64, 1, 1
        in al, 0x60
        ret
drain:                                  ; until nothing comes for 30 ms
        call wait_byte
        je .one
        ret
.one:   in al, 0x60
        jmp drain
wait_byte:                              ; Z: a byte is there
        mov bp, 6
.next:  in al, 0x64
        test al, 1
        jnz .there
        SLEEP_5MS 1
        dec bp
        jnz .next
        test bp, bp
        lahf
        xor ah, 0x40
        sahf
        ret
.there: cmp al, al
        ret
answers:
        mov al, '/'
        out 0xE9, al
.next:  call wait_byte
        jne .end
        in al, 0x64
        and al, 0x21
        call hex2_16
        in al, 0x60
        call hex2_16
        jmp .next
.end:   ret
bytes_only:
        mov al, '/'
        out 0xE9, al
.next:  call wait_byte
        jne .end
        in al, 0x60
        call hex2_16
        jmp .next
.end:   ret
show_a20:                               ; 1: memory at 1 MiB is not that at 0
        push ds
        mov ax, 0xFFFF
        mov ds, ax
        mov byte [ss:0x500], 0x11
        mov byte [0x510], 0x22
        mov al, [ss:0x500]
        pop ds
        cmp al, 0x11
        sete al
        jmp hex2_16

        RESET_VECTOR start
