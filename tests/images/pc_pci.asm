; PCI of a pc as software meets it behind reset: configuration mechanism #1 and its ports, absent functions, sizes of
; BARs, read-only registers, PAM with RAM behind it, PIRQ routing, power management's I/O space, bus-master IDE.
%include "probe.inc"

ADDRESS equ 0xCF8
DATA    equ 0xCFC
%define AT(device, function, register) (0x80000000 | (device) << 11 | (function) << 8 | (register))

%macro SELECT 1
        mov dx, ADDRESS
        mov eax, %1
        out dx, eax
%endmacro
%macro READ 1                           ; a doubleword of configuration space, at a multiple of 4: EAX
        SELECT %1
        mov dx, DATA
        in eax, dx
%endmacro
%macro WRITE 2
        SELECT %1
        mov dx, DATA
        mov eax, %2
        out dx, eax
%endmacro
%macro WRITEB 2                         ; one byte, by the port that its address's low bits choose
        SELECT (%1) & ~3
        mov dx, DATA + ((%1) & 3)
        mov al, %2
        out dx, al
%endmacro
%macro SHOW 1
        READ %1
        call hex8_16
%endmacro
%macro SHOWN 0
        call hex8_16
%endmacro

        CHECK 'host-bridge'
        SHOW AT(0, 0, 0)
        CHECK 'isa-bridge'
        SHOW AT(1, 0, 0)
        CHECK 'ide'
        SHOW AT(1, 1, 0)
        CHECK 'power'
        SHOW AT(1, 3, 0)
        CHECK 'host-class'
        READ AT(0, 0, 8)
        shr eax, 8
        SHOWN
        CHECK 'isa-class'
        READ AT(1, 0, 8)
        shr eax, 8
        SHOWN
        CHECK 'ide-class'
        READ AT(1, 1, 8)
        shr eax, 8
        SHOWN
        CHECK 'several-functions'       ; the header type's bit 7
        READ AT(1, 0, 12)
        shr eax, 16
        and eax, 0xFF
        SHOWN
        CHECK 'absent-device'
        SHOW AT(30, 0, 0)
        CHECK 'absent-function'
        SHOW AT(1, 7, 0)
        CHECK 'absent-write'
        WRITE AT(30, 0, 4), 7
        SHOW AT(30, 0, 4)

        CHECK 'address-reads-back'
        SELECT AT(1, 1, 0x20)
        mov dx, ADDRESS
        in eax, dx
        SHOWN
        CHECK 'address-by-bytes'        ; only a doubleword reaches the address register (PCI 2.1, 3.2.2.3.2)
        SELECT AT(1, 1, 0)
        mov dx, ADDRESS
        mov al, 8
        out dx, al
        in eax, dx
        SHOWN
        CHECK 'disabled'                ; without bit 31 an access to CFCh is an ordinary one
        SELECT 0
        mov dx, DATA
        in eax, dx
        SHOWN
        CHECK 'byte-of-four'
        SELECT AT(0, 0, 0)
        mov dx, DATA + 1
        in al, dx
        movzx eax, al
        SHOWN
        CHECK 'word-of-four'
        SELECT AT(0, 0, 0)
        mov dx, DATA + 2
        in ax, dx
        movzx eax, ax
        SHOWN

        CHECK 'identity-is-read-only'
        WRITE AT(1, 1, 0), 0x12345678
        SHOW AT(1, 1, 0)
        CHECK 'busmaster-size'          ; sixteen ports (PCI IDE controller specification 1.0)
        WRITE AT(1, 1, 0x20), 0xFFFFFFFF
        SHOW AT(1, 1, 0x20)
        CHECK 'busmaster-base'
        WRITE AT(1, 1, 0x20), 0xC105
        SHOW AT(1, 1, 0x20)
        CHECK 'no-bar'
        WRITE AT(1, 1, 0x10), 0xFFFFFFFF
        SHOW AT(1, 1, 0x10)
        CHECK 'busmaster-off'           ; not decoded before the command register lets it
        mov dx, 0xC102
        in al, dx
        movzx eax, al
        SHOWN
        WRITEB AT(1, 1, 4), 5
        CHECK 'busmaster-status'
        mov dx, 0xC102
        in al, dx
        and eax, 0x07
        SHOWN
        CHECK 'busmaster-capable'       ; bits 5 and 6 are the driver's
        mov al, 0x60
        out dx, al
        in al, dx
        and eax, 0x60
        SHOWN
        CHECK 'busmaster-table'         ; bits 1 and 0 are 0
        mov dx, 0xC104
        mov eax, 0x00123457
        out dx, eax
        in eax, dx
        SHOWN
        WRITEB AT(1, 1, 4), 0

        CHECK 'pirq-reset'
        SHOW AT(1, 0, 0x60)
        CHECK 'pirq-written'
        WRITE AT(1, 0, 0x60), 0x0B0A0985
        SHOW AT(1, 0, 0x60)
        WRITE AT(1, 0, 0x60), 0x80808080

        CHECK 'pam-reset'               ; PAM3 to PAM6: D0000h to EFFFFh
        SHOW AT(0, 0, 0x5C)
        CHECK 'pam-written'
        WRITEB AT(0, 0, 0x5C), 0x33
        SHOW AT(0, 0, 0x5C)
        mov ax, 0xD000
        mov es, ax
        CHECK 'shadow'                  ; written, then read with RAM behind the segment
        mov dword [es:0], 0x11223344
        mov eax, [es:0]
        SHOWN
        CHECK 'shadow-read-only'
        WRITEB AT(0, 0, 0x5C), 0x11
        mov dword [es:0], 0x55667788
        mov eax, [es:0]
        SHOWN
        CHECK 'shadow-write-only'       ; RAM takes the write; reads go to PCI, where nobody answers
        WRITEB AT(0, 0, 0x5C), 0x22
        mov dword [es:0], 0x99AABBCC
        WRITEB AT(0, 0, 0x5C), 0x33
        mov eax, [es:0]
        SHOWN
        xor ax, ax
        mov es, ax

        CHECK 'pm-base'
        WRITE AT(1, 3, 0x40), 0xB000
        SHOW AT(1, 3, 0x40)
        WRITEB AT(1, 3, 0x80), 1
        CHECK 'pm-timer-runs'
        mov dx, 0xB008
        in eax, dx
        mov ebx, eax
        PAUSE_US 1000
        in eax, dx
        sub eax, ebx
        and eax, 0xFFFFFF
        shr eax, 9                      ; 3579 counts
        test eax, eax
        setnz al
        movzx eax, al
        SHOWN
        CHECK 'pm-enable'
        mov dx, 0xB002
        mov ax, 0x0521
        out dx, ax
        in ax, dx
        movzx eax, ax
        SHOWN
        xor ax, ax
        out dx, ax

        PROBE_DONE
        RESET_VECTOR start
