; The tour: a 64 KiB ROM that visits the modes of an x86-64 PC and says so in each.
;
; It starts at the reset vector (F000:FFF0 with CS base FFFF0000; SDM vol. 3A, 10.1.4) and needs no BIOS: it
; programs the interrupt controllers, the timer, COM1 and the VGA itself. In every mode it waits in HLT for one
; timer interrupt, which is delivered by that mode's own mechanism, and prints one line on the screen and on COM1
; (115200 8N1). The last line is "tour: done"; then it writes 0 to the debug-exit port F4h. A check that fails
; prints "tour: FAILED" and writes 1.
;
; Assemble:  nasm -f bin -I emu/firmware/ -o emu/firmware/tour.bin emu/firmware/tour.asm
; Run:       v2e run
;            qemu-system-x86_64 -M isapc -cpu qemu64,-apic -bios tour.bin -serial stdio -display none
;                               -device isa-debug-exit,iobase=0xf4,iosize=1        (one line; ends with status 1;
;                               -apic, because QEMU's TCG masks INTR at LINT0 of an APIC that is switched off)
;
; Map of the ROM (offsets; the CPU sees it at FFFF0000 and at F0000)
;   0000  text that says what this is           0123  code (16-bit protected mode has its base here)
;   FF00  table of stops: 16 bytes each: dd linear address of the first instruction executed in the mode,
;         12 bytes of name padded with zeros; ends with an address of 0
;   FFF0  reset vector
;
; Map of the RAM it uses (linear addresses; it needs 4 MiB)
;   0000 IVT   0500 variables   1000 GDT   5008-5FF8 stack of 16-bit protected mode   6000-6800 stack of V86
;   6800-7000 stack of the other modes   7800-8000 ring 0 stack of V86   9000 TSS   9100 64-bit TSS
;   10000 page directory (4 MiB pages)   11000 PDPT (PAE)   12000 page directory (2 MiB pages)
;   13000 PML4   14000 PDPT (long mode)   200000, 300000: one doubleword each, as probes

ROM             equ 0xF0000             ; where the low copy of the ROM is
VARS            equ 0x500
GDT_RAM         equ 0x1000
TSS             equ 0x9000
TSS64           equ 0x9100
PSE_DIR         equ 0x10000
PAE_PDPT        equ 0x11000
PAE_DIR         equ 0x12000
PML4            equ 0x13000
LONG_PDPT       equ 0x14000
PROBE           equ 0x300000            ; odd megabyte: reaches its own memory only with A20 on
ALIAS           equ 0xC0000000          ; linear address at which the paging modes map physical 0 again
STACK           equ 0x7000
RING0_STACK     equ 0x8000

; Variables, offsets from VARS
ticks           equ 0                   ; dd: timer interrupts taken
last_cs         equ 4                   ; dd: CS that the last one interrupted
last_flags      equ 8                   ; dd: EFLAGS that the last one interrupted
cursor          equ 12                  ; dd: character cell where the next character goes
before          equ 16                  ; dd: `ticks` before the wait
VARS_SIZE       equ 20

TIMER_VECTOR    equ 0x20                ; IRQ 0 with the master controller at 20h
LEAVE_V86       equ 0x30                ; the V86 task's only service call
PIT_COUNT       equ 600                 ; 0.5 ms of the 1.193182 MHz clock
ATTRIBUTE       equ 0x07                ; light grey on black

; Linear address of a label in the low copy
%define F(label) (ROM + (label - rom))

; ---------------------------------------------------------------------------------------------------------------
; The console and the wait, once for each operand size. The flat variants (32, 64) address memory linearly; the
; 16-bit one wants DS at VARS, ES at B8000 and strings in CS, whatever the selectors are, so that real, V86 and
; 16-bit protected mode share it.

%macro SERVICES 1                       ; 16, 32 or 64
bits %1
%if %1 == 16
  %define V(x) x
  %define SRC si
  %define DST di
  %define REG(x) x
%elif %1 == 32
  %define V(x) VARS + x
  %define SRC esi
  %define DST edi
  %define REG(x) e %+ x
%else
  %define V(x) VARS + x
  %define SRC rsi
  %define DST rdi
  %define REG(x) r %+ x
%endif

; Print the character AL on COM1 and on the screen. Keeps all registers.
putc%1:
        push REG(ax)
        push REG(bx)
        push REG(cx)
        push REG(dx)
        push DST
        mov bl, al
        mov bh, 0x20                    ; THRE: transmitter holding register empty
        call wait%1
        mov dx, 0x3F8
        mov al, bl
        out dx, al
        cmp al, 13
        je .done                        ; the screen needs no carriage return
        cmp al, 10
        je .line
%if %1 == 16
        mov di, [V(cursor)]
        add di, di
        mov ah, ATTRIBUTE
        mov [es:di], ax
%else
        mov edi, [V(cursor)]
        mov ah, ATTRIBUTE
        mov [DST * 2 + 0xB8000], ax
%endif
        inc word [V(cursor)]
        jmp .show
.line:  mov ax, [V(cursor)]             ; to the start of the next row of 80 cells
        mov bl, 80
        div bl
        inc al
        mul bl
        mov [V(cursor)], ax
.show:  mov bx, [V(cursor)]
        mov dx, 0x3D4
        mov al, 0x0E                    ; cursor location high
        mov ah, bh
        out dx, ax
        mov al, 0x0F                    ; cursor location low
        mov ah, bl
        out dx, ax
.done:  pop DST
        pop REG(dx)
        pop REG(cx)
        pop REG(bx)
        pop REG(ax)
        ret

; Wait until a bit of BH is set in the UART's line status. A character takes 87 us: to look at the port without a
; pause would only cost an emulator time. Clobbers AL, CX, DX.
wait%1:
        mov dx, 0x3FD
.look:  in al, dx
        test al, bh
        jnz .set
        mov REG(cx), 500
.pause: loop .pause
        jmp .look
.set:   ret

; Print the zero-terminated string at SI (in CS) or at linear ESI/RSI.
puts%1:
        push REG(ax)
        push SRC
.next:
%if %1 == 16
        mov al, [cs:si]
%else
        mov al, [SRC]
%endif
        inc SRC
        test al, al
        jz .done
        call putc%1
        jmp .next
.done:  pop SRC
        pop REG(ax)
        ret

; Print a mode's line: the string, the number of ticks in decimal (below 100), end of line.
say%1:
        push REG(ax)
        call puts%1
        mov al, [V(ticks)]
        aam%1                           ; AH tens, AL ones
        test ah, ah
        jz .ones
        xchg al, ah
        add al, '0'
        call putc%1
        xchg al, ah
.ones:  add al, '0'
        call putc%1
        mov al, 13
        call putc%1
        mov al, 10
        call putc%1
        pop REG(ax)
        ret

; Have the timer interrupt once and wait for it in HLT. Interrupts are off before and after. Fails unless the
; interrupt was taken from the code segment that waited for it.
tick%1:
        push REG(ax)
        mov eax, [V(ticks)]
        mov [V(before)], eax
        mov al, 0x30                    ; counter 0, two bytes, mode 0: interrupt on terminal count
        out 0x43, al
        mov al, PIT_COUNT & 0xFF
        out 0x40, al
        mov al, PIT_COUNT >> 8
        out 0x40, al
.wait:  sti
        hlt                             ; in STI's shadow: an interrupt that is pending already wakes it
        cli
        mov eax, [V(ticks)]
        cmp eax, [V(before)]
        je .wait
        mov ax, cs
        cmp ax, [V(last_cs)]
        jne fail%1
        pop REG(ax)
        ret

fail%1:
%if %1 == 16
        call .here
.here:  pop si                          ; IP in this code segment, whatever its base
        add si, s_failed - .here
%else
        mov esi, F(s_failed)
%endif
        call puts%1
        mov al, 1
finish%1:                               ; end with code AL
        mov ah, al
        mov bh, 0x40                    ; TEMT: the last character has left
        call wait%1
        mov al, ah
        out 0xF4, al                    ; debug exit
%if %1 == 16
        call .base                      ; Bochs knows no debug exit but ends on this word at port 8900h
.base:  pop si
        add si, s_shutdown - .base
%else
        mov esi, F(s_shutdown)
%endif
        mov dx, 0x8900
.next:
%if %1 == 16
        mov al, [cs:si]
%else
        mov al, [SRC]
%endif
        inc SRC
        out dx, al
        test al, al
        jnz .next
        cli
.stop:  hlt
        jmp .stop
%endmacro

; Split AL into decimal digits; long mode has no AAM.
%macro aam16 0
        aam
%endmacro
%macro aam32 0
        aam
%endmacro
%macro aam64 0
        push rbx
        movzx eax, al
        mov bl, 10
        div bl                          ; AL quotient, AH remainder
        xchg al, ah
        pop rbx
%endmacro

; The timer's handler. %1 operand size, %2 DS value for VARS (16) or 0 for flat (32, 64).
%macro TICK_HANDLER 2
bits %1
%if %1 == 16
        push bp
        mov bp, sp                      ; [bp+2] IP, [bp+4] CS, [bp+6] FLAGS
        push ax
        push ds
        mov ax, %2
        mov ds, ax
        mov ax, [bp + 4]
        mov [last_cs], ax
        mov ax, [bp + 6]
        mov [last_flags], ax
        inc dword [ticks]
        mov al, 0x20                    ; non-specific end of interrupt
        out 0x20, al
        pop ds
        pop ax
        pop bp
        iret
%elif %1 == 32
        push eax
        push ds                         ; coming from V86 it is null, and is given back so
        mov eax, DATA32
        mov ds, eax
        mov eax, [esp + 12]
        mov [VARS + last_cs], eax
        mov eax, [esp + 16]
        mov [VARS + last_flags], eax
        inc dword [VARS + ticks]
        mov al, 0x20
        out 0x20, al
        pop ds
        pop eax
        iretd
%else
        push rax
        mov eax, [rsp + 16]
        mov [VARS + last_cs], eax
        mov eax, [rsp + 24]
        mov [VARS + last_flags], eax
        inc dword [VARS + ticks]
        mov al, 0x20
        out 0x20, al
        pop rax
        iretq
%endif
%endmacro

; Gates (SDM vol. 3A, 6.11 and 6.14.1). %1 label, %2 selector, %3 type and DPL, %4 base of the code segment.
%macro GATE 4
        dw ((%1 - rom) + ROM - (%4)) & 0xFFFF, %2, (%3) << 8, ((%1 - rom) + ROM - (%4)) >> 16
%endmacro
%macro GATE64 3
        GATE %1, %2, %3, 0
        dq 0
%endmacro
; Segment descriptor (SDM vol. 3A, 3.4.5). %1 base, %2 limit field, %3 access byte, %4 G D/B L AVL nibble.
%macro SEGMENT 4
        dw (%2) & 0xFFFF, (%1) & 0xFFFF
        db ((%1) >> 16) & 0xFF, %3, ((%4) << 4) | (((%2) >> 16) & 0xF), (%1) >> 24
%endmacro

; ---------------------------------------------------------------------------------------------------------------
bits 16
org 0
rom:
        db 'v2e tour ROM', 13, 10, 26
s_shutdown:     db 'Shutdown', 0

; 16-bit protected mode runs with this as its code segment's base: it is no multiple of 16, so that no real-mode
; segment could say it.
PM16_BASE       equ ROM + 0x123
%define P16(label) ((label - rom) - 0x123)
        times 0x123 - ($ - rom) db 0

SERVICES 16

tick_real:
        TICK_HANDLER 16, VARS >> 4
tick_pm16:
        TICK_HANDLER 16, DATA16

; ----- real mode
real:                                   ; first instruction after the reset vector's jump
        cli
        cld
        mov al, 0x80                    ; no NMI while there is no handler (CMOS index bit 7)
        out 0x70, al
        in al, 0x92                     ; A20 on
        or al, 2
        and al, 0xFE                    ; bit 0 would reset
        out 0x92, al
        mov ax, VARS >> 4
        mov ds, ax
        xor ax, ax
        mov ss, ax
        mov sp, STACK
        mov es, ax
        mov di, VARS
        mov cx, VARS_SIZE
        rep stosb
        mov word [es:TIMER_VECTOR * 4], tick_real
        mov word [es:TIMER_VECTOR * 4 + 2], cs
        call setup_uart
        call setup_vga
        call setup_timer
        mov ax, 0xB800
        mov es, ax
        call tick16
        mov si, s_real
        call say16

; ----- big real mode: protected-mode limits kept in the descriptor caches (SDM vol. 3A, 10.9.2)
        mov si, gdt                     ; the GDT must be RAM: LTR marks the TSS busy in it
        xor ax, ax
        mov es, ax
        mov di, GDT_RAM
        mov cx, gdt_end - gdt
.copy:  mov al, [cs:si]
        mov [es:di], al
        inc si
        inc di
        loop .copy
        o32 lgdt [cs:gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp short .pe
.pe:    mov bx, DATA32
        mov ds, bx
        mov es, bx
        mov fs, bx
        mov gs, bx
        and al, 0xFE
        mov cr0, eax
big_real:                               ; limits of 4 GiB from here on, and bases from protected mode for a moment
        xor bx, bx
        mov fs, bx
        mov gs, bx
        mov ax, VARS >> 4
        mov ds, ax
        mov ax, 0xB800
        mov es, ax
        mov dword [fs:dword 0x200000], 0x0B00B135
        mov dword [fs:dword PROBE], 0x5EED1E55
        cmp dword [fs:dword 0x200000], 0x0B00B135
        jne fail16
        mov esi, PROBE - VARS
        cmp dword [esi], 0x5EED1E55     ; the same through DS: base VARS, offset above 64 KiB
        jne fail16
        call tick16
        cmp dword [esi], 0x5EED1E55     ; the limits outlived an interrupt
        jne fail16
        mov si, s_big_real
        call say16

; ----- 16-bit protected mode
        o32 lidt [cs:idtr16]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp CODE16:P16(pm16)
pm16:
        mov ax, DATA16
        mov ds, ax
        mov ax, STACK16
        mov ss, ax
        mov sp, 0x0FF0
        mov ax, VIDEO16
        mov es, ax
        call tick16
        mov si, P16(s_pm16)
        call say16
        jmp dword CODE32:F(pm32)

; ----- devices
setup_uart:                             ; 16550A data sheet, table 2
        mov si, .table
.next:  mov dx, [cs:si]
        test dx, dx
        jz .done
        mov al, [cs:si + 2]
        out dx, al
        add si, 3
        jmp .next
.done:  ret
%macro UART 2
        dw 0x3F8 + %1
        db %2
%endmacro
.table: UART 1, 0x00                    ; IER: none
        UART 3, 0x80                    ; LCR: divisor latch
        UART 0, 1                       ; 115200 baud
        UART 1, 0
        UART 3, 0x03                    ; 8 data bits, no parity, 1 stop bit
        UART 2, 0x07                    ; FCR: FIFOs on and empty
        UART 4, 0x03                    ; MCR: DTR, RTS
        dw 0

setup_timer:
        mov eax, 1                      ; a local APIC takes the 8259's INTR at its LINT0, which is masked at reset:
        cpuid                           ; switch it off, so that INTR reaches the CPU (SDM vol. 3A, 11.4.3, 11.5.1)
        and edx, 0x220                  ; MSR, APIC
        cmp edx, 0x220
        jne .pic
        mov ecx, 0x1B                   ; IA32_APIC_BASE
        rdmsr
        and ah, ~0x08                   ; bit 11: APIC global enable
        wrmsr
.pic:   mov al, 0x30                    ; the timer may run periodically since reset: make it end in mode 0, and let
        out 0x43, al                    ; ICW1 forget the requests it has made
        mov al, 2
        out 0x40, al
        mov al, 0
        out 0x40, al
.runs:  mov al, 0xE2                    ; 8254 data sheet, read-back command: latch the status of counter 0
        out 0x43, al
        in al, 0x40
        test al, 0x80                   ; OUT
        jz .runs
        mov al, 0x11                    ; 8259A data sheet: ICW1: edge triggered, cascade, ICW4 follows
        out 0x20, al
        out 0xA0, al
        mov al, TIMER_VECTOR            ; ICW2: vector base
        out 0x21, al
        mov al, TIMER_VECTOR + 8
        out 0xA1, al
        mov al, 0x04                    ; ICW3: the slave is on IR2
        out 0x21, al
        mov al, 0x02
        out 0xA1, al
        mov al, 0x01                    ; ICW4: 8086 mode, normal EOI
        out 0x21, al
        out 0xA1, al
        mov al, 0xFE                    ; only IRQ 0
        out 0x21, al
        mov al, 0xFF
        out 0xA1, al
        ret

setup_vga:                              ; IBM VGA: mode 3, 80x25 text, 9x16 cells, 720x400
        push ds
        mov dx, 0x3C2                   ; miscellaneous output: colour addresses, RAM on, 28 MHz, 400 lines
        mov al, 0x67
        out dx, al
        mov dx, 0x3D4                   ; CRTC registers 0-7 are locked by bit 7 of register 11h
        mov ax, 0x0E11
        out dx, ax
        mov si, vga_crtc
        mov cx, 25
        call vga_load
        mov dx, 0x3C4
        mov ax, 0x0100                  ; sequencer in reset while its clock changes
        out dx, ax
        mov si, vga_font_sequencer
        mov cx, 5
        call vga_load
        mov dx, 0x3CE
        mov si, vga_font_graphics
        mov cx, 9
        call vga_load
        call load_font
        mov dx, 0x3C4
        mov si, vga_sequencer
        mov cx, 5
        call vga_load
        mov dx, 0x3CE
        mov si, vga_graphics
        mov cx, 9
        call vga_load
        mov dx, 0x3DA                   ; reading it makes 3C0h expect an index
        in al, dx
        mov dx, 0x3C0
        mov si, vga_attribute
        xor ah, ah
.attr:  mov al, ah
        out dx, al
        mov al, [cs:si]
        out dx, al
        inc si
        inc ah
        cmp ah, 21
        jb .attr
        mov al, 0x20                    ; palette to the screen again
        out dx, al
        call load_palette
        mov ax, 0xB800                  ; blank screen
        mov es, ax
        xor di, di
        mov ax, ATTRIBUTE << 8 | ' '
        mov cx, 80 * 25
        rep stosw
        pop ds
        ret

vga_load:                               ; CX indexed registers at DX from CS:SI
        xor al, al
.next:  mov ah, [cs:si]
        out dx, ax
        inc si
        inc al
        loop .next
        ret

load_font:                              ; plane 2 holds 32 bytes a character; each row of the 8x8 font twice
        mov ax, 0xA000
        mov es, ax
        xor di, di
        xor ax, ax
        mov cx, 0x2000 / 2
        rep stosw                       ; what the font lacks is blank
        mov si, font
        mov di, FONT_FIRST * 32
        mov bx, FONT_GLYPHS
.glyph: mov cx, 8
.row:   mov al, [cs:si]
        inc si
        mov ah, al
        mov [es:di], ax
        add di, 2
        loop .row
        add di, 16
        dec bx
        jnz .glyph
        ret

load_palette:                           ; DAC 0-63: bits 5-0 of the index are r g b R G B, thirds of the full scale
        mov dx, 0x3C8
        xor al, al
        out dx, al
        inc dx
        xor bl, bl
.entry: mov bh, bl
        mov cx, 3
.gun:   xor al, al                      ; red, green, blue: bits 2/5, 1/4, 0/3
        test bh, 0x04
        jz .low
        add al, 0x2A
.low:   test bh, 0x20
        jz .out
        add al, 0x15
.out:   out dx, al
        shl bh, 1
        loop .gun
        inc bl
        cmp bl, 64
        jb .entry
        ret

; Register values of mode 3 (IBM PS/2 Hardware Interface Technical Reference, VGA function)
vga_crtc:       db 0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00
                db 0x00, 0x00, 0x00, 0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF
vga_sequencer:  db 0x03, 0x00, 0x03, 0x00, 0x02         ; planes 0 and 1, odd/even
vga_graphics:   db 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF
vga_attribute:  db 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07
                db 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F
                db 0x0C, 0x00, 0x0F, 0x08, 0x00
; The same for writing the font: plane 2 alone, sequential, at A0000
vga_font_sequencer: db 0x03, 0x00, 0x04, 0x00, 0x06
vga_font_graphics:  db 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x04, 0x00, 0xFF

; ---------------------------------------------------------------------------------------------------------------
; 32-bit code, CS base 0
SERVICES 32

tick_pm32:
        TICK_HANDLER 32, 0

; ----- 32-bit protected mode
pm32:
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        mov esp, STACK
        lidt [F(idtr32)]
        call tick32
        mov esi, F(s_pm32)
        call say32

; ----- 4 MiB pages (CR4.PSE): all of the 4 GiB to themselves, and the 4 MiB from 3 GiB to physical 0
        mov edi, PSE_DIR
        mov eax, 0x83                   ; present, writable, PS
.pde:   stosd
        add eax, 0x400000
        jnc .pde
        mov dword [PSE_DIR + (ALIAS >> 22) * 4], 0x83
        mov eax, PSE_DIR
        mov cr3, eax
        mov eax, cr4
        or eax, 0x10
        mov cr4, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        mov eax, ALIAS + F(pse)
        jmp eax
pse:                                    ; runs at ALIAS: linear and physical addresses differ
        cmp dword [ALIAS + PROBE], 0x5EED1E55
        jne fail32
        call tick32
        mov esi, F(s_pse)
        call say32
        mov eax, F(.off)
        jmp eax                         ; back to where linear is physical
.off:   mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax

; ----- PAE: the first GiB to itself, and again from 3 GiB on; user pages, for V86
        mov edi, PAE_PDPT
        xor eax, eax
        mov ecx, (LONG_PDPT + 0x1000 - PAE_PDPT) / 4
        rep stosd
        mov dword [PAE_PDPT], PAE_DIR | 1
        mov dword [PAE_PDPT + (ALIAS >> 30) * 8], PAE_DIR | 1
        mov edi, PAE_DIR
        mov eax, 0x87                   ; present, writable, user, PS
.pde2:  mov [edi], eax
        add edi, 8
        add eax, 0x200000
        cmp edi, PAE_DIR + 0x1000
        jb .pde2
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, PAE_PDPT
        mov cr3, eax
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
pae:
        cmp dword [ALIAS + PROBE], 0x5EED1E55
        jne fail32
        call tick32
        mov esi, F(s_pae)
        call say32

; ----- V86, with PAE paging on. IOPL 3: CLI, STI, PUSHF, POPF and IRET do not fault; HLT does (SDM vol. 3B, 21.2)
        mov edi, TSS
        mov ecx, TSS_SIZE / 4
        xor eax, eax
        rep stosd                       ; I/O permission bitmap of zeros: ports 0-3FFh are the task's
        mov dword [TSS + 4], RING0_STACK
        mov dword [TSS + 8], DATA32
        mov word [TSS + 0x66], 0x68     ; where the bitmap begins
        mov byte [TSS + 0x68 + 0x80], 0xFF
        mov eax, TSS_SEL
        ltr ax
        push dword 0                    ; GS
        push dword 0                    ; FS
        push dword VARS >> 4            ; DS
        push dword 0xB800               ; ES
        push dword 0x600                ; SS
        push dword 0x7F0                ; ESP
        push dword 0x23002              ; EFLAGS: VM, IOPL 3, IF off
        push dword ROM >> 4             ; CS
        push dword v86 - rom            ; EIP
        iretd
bits 16
v86:                                    ; F000:v86, ring 3
        call tick16                     ; its HLT ends in general_protection below
        test byte [last_flags + 2], 2   ; EFLAGS.VM of what the interrupt interrupted
        jz fail16
        mov si, s_v86
        call say16
        int LEAVE_V86
bits 32
; The monitor: the V86 task's HLT raises #GP(0); skip it, the task looks again whether its tick has come. This
; handler runs with interrupts off, so the timer interrupts the task and nothing else.
general_protection:                     ; [esp] error code, [esp+4] EIP, [esp+8] CS, [esp+12] EFLAGS
        push eax
        push ebx
        push ds
        mov eax, DATA32
        mov ds, eax
        test byte [esp + 26], 2         ; EFLAGS.VM
        jz unexpected
        movzx eax, word [esp + 20]      ; CS * 16 + IP
        shl eax, 4
        movzx ebx, word [esp + 16]
        cmp byte [eax + ebx], 0xF4      ; HLT
        jne unexpected
        inc word [esp + 16]
        pop ds
        pop ebx
        pop eax
        add esp, 4
        iretd
unexpected:
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        jmp fail32
leave_v86:
        mov eax, DATA32
        mov ds, eax
        mov es, eax
        mov fs, eax
        mov gs, eax
        mov ss, eax
        mov esp, STACK

; ----- long mode: first GiB to itself, and again from FFFFFFFF80000000 on
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        mov dword [PML4], LONG_PDPT | 3
        mov dword [PML4 + 511 * 8], LONG_PDPT | 3
        mov dword [LONG_PDPT], PAE_DIR | 3
        mov dword [LONG_PDPT + 510 * 8], PAE_DIR | 3
        mov eax, PML4
        mov cr3, eax
        mov ecx, 0xC0000080             ; IA32_EFER
        rdmsr
        or eax, 0x100                   ; LME
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        jmp CODE64:F(long64)
SERVICES 64
tick_long:
        TICK_HANDLER 64, 0
long64:
        mov ax, DATA32
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov esp, STACK
        mov edi, TSS64
        mov ecx, 0x68 / 4
        xor eax, eax
        rep stosd
        mov word [TSS64 + 0x66], 0x68   ; no bitmap
        mov eax, TSS64_SEL
        ltr ax
        lidt [F(idtr64)]
        mov r15, 0xFEEDFACE5EED1E55
        mov rax, 0xFFFFFFFF80000000 + PROBE
        mov ecx, [rax]
        cmp ecx, r15d
        jne fail64
        call tick64
        mov rdx, r15
        shr rdx, 32
        cmp edx, 0xFEEDFACE             ; upper halves outlived the interrupt
        jne fail64
        mov esi, F(s_long)
        call say64

; ----- compatibility mode: 32-bit code under long mode; the interrupt goes through the 64-bit IDT
        push qword CODE32
        push qword F(compat)
        o64 retf
bits 32
compat:
        call tick32
        mov ecx, 0xC0000080
        rdmsr
        test eax, 0x400                 ; LMA: long mode is still on
        jz fail32
        mov esi, F(s_compat)
        call say32

; ----- back to real mode (SDM vol. 3A, 10.8.5.4 out of IA-32e mode, 10.9.2 out of protected mode)
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        rdmsr
        and eax, ~0x100
        wrmsr
        xor eax, eax
        mov cr3, eax
        mov cr4, eax
        jmp REAL_CODE:(.limits - rom)
bits 16
.limits:
        mov ax, REAL_DATA               ; limits of 64 KiB, as real mode code expects
        mov ds, ax
        mov es, ax
        mov fs, ax
        mov gs, ax
        mov ss, ax
        o32 lidt [cs:idtr_real]
        mov eax, cr0
        and al, 0xFE
        mov cr0, eax
        jmp (ROM >> 4):(real_again - rom)
real_again:
        xor ax, ax
        mov ss, ax
        mov sp, STACK
        mov fs, ax
        mov gs, ax
        mov ax, VARS >> 4
        mov ds, ax
        mov ax, 0xB800
        mov es, ax
        call tick16
        mov si, s_real_again
        call say16
        mov si, s_done
        call puts16
        xor al, al
        jmp finish16

; ---------------------------------------------------------------------------------------------------------------
s_real:         db 'tour: real, tick ', 0
s_big_real:     db 'tour: big real, tick ', 0
s_pm16:         db 'tour: 16-bit protected, tick ', 0
s_pm32:         db 'tour: 32-bit protected, tick ', 0
s_pse:          db 'tour: 4 MiB paging, tick ', 0
s_pae:          db 'tour: PAE paging, tick ', 0
s_v86:          db 'tour: V86, tick ', 0
s_long:         db 'tour: 64-bit long, tick ', 0
s_compat:       db 'tour: compatibility, tick ', 0
s_real_again:   db 'tour: real again, tick ', 0
s_done:         db 'tour: done', 13, 10, 0
s_failed:       db 'tour: FAILED', 13, 10, 0

TSS_SIZE        equ 0x68 + 0x80 + 4     ; with the bitmap of ports 0-3FFh and its closing byte

        align 8
gdt:            dq 0
CODE32          equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xC
DATA32          equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x93, 0xC
CODE16          equ $ - gdt
        SEGMENT PM16_BASE, 0xFFFF, 0x9B, 0
DATA16          equ $ - gdt
        SEGMENT VARS, 0xFFFF, 0x93, 0
STACK16         equ $ - gdt
        SEGMENT 0x5008, 0xFFFF, 0x93, 0
VIDEO16         equ $ - gdt
        SEGMENT 0xB8000, 0x7FFF, 0x93, 0
CODE64          equ $ - gdt
        SEGMENT 0, 0xFFFFF, 0x9B, 0xA
REAL_CODE       equ $ - gdt
        SEGMENT ROM, 0xFFFF, 0x9B, 0
REAL_DATA       equ $ - gdt
        SEGMENT 0, 0xFFFF, 0x93, 0
TSS_SEL         equ $ - gdt
        SEGMENT TSS, TSS_SIZE - 1, 0x89, 0
TSS64_SEL       equ $ - gdt
        SEGMENT TSS64, 0x67, 0x89, 0
        dq 0                            ; upper half of its base
gdt_end:
gdtr:           dw gdt_end - gdt - 1
                dd GDT_RAM
idtr_real:      dw 0x3FF
                dd 0
idtr16:         dw idt16_end - idt16 - 1
                dd F(idt16)
idtr32:         dw idt32_end - idt32 - 1
                dd F(idt32)
idtr64:         dw idt64_end - idt64 - 1
                dq F(idt64)

        align 8
idt16:
%rep TIMER_VECTOR
        GATE fail16, CODE16, 0x86, PM16_BASE
%endrep
        GATE tick_pm16, CODE16, 0x86, PM16_BASE
idt16_end:
        align 8
idt32:
%assign vector 0
%rep TIMER_VECTOR
%if vector == 13
        GATE general_protection, CODE32, 0x8E, 0
%else
        GATE unexpected, CODE32, 0x8E, 0
%endif
%assign vector vector + 1
%endrep
        GATE tick_pm32, CODE32, 0x8E, 0
%rep LEAVE_V86 - TIMER_VECTOR - 1
        GATE unexpected, CODE32, 0x8E, 0
%endrep
        GATE leave_v86, CODE32, 0xEE, 0
idt32_end:
        align 16
idt64:
%rep TIMER_VECTOR
        GATE64 fail64, CODE64, 0x8E
%endrep
        GATE64 tick_long, CODE64, 0x8E
idt64_end:

%include "tour_font.inc"

; ---------------------------------------------------------------------------------------------------------------
%macro STOP 2                           ; linear address, name
%%entry:
        dd %1
        db %2
        times 16 - ($ - %%entry) db 0
%endmacro
        times 0xFF00 - ($ - rom) db 0xF4        ; HLT, should anything stray here
        STOP F(real), 'real'
        STOP F(big_real), 'big-real'
        STOP F(pm16), 'pm16'
        STOP F(pm32), 'pm32'
        STOP ALIAS + F(pse), 'pse'
        STOP F(pae), 'pae'
        STOP F(v86), 'v86'
        STOP F(long64), 'long64'
        STOP F(compat), 'compat'
        STOP F(real_again), 'real-again'
        dd 0
        times 0xFFF0 - ($ - rom) db 0
        jmp (ROM >> 4):(real - rom)
        times 0x10000 - ($ - rom) db 0
