; Polls of a PC's clocks: a 64 KiB ROM for machine pc that waits for the clock CLOCK by reading it in a loop, as drivers
; do, prints "moved" to port E9h and ends by the debug-exit port. HOW says what was done to the clock before.
; With READS defined it gives up after so many reads, and prints "stands" if the clock has not come to where it should.
;   CLOCK 0  ACPI timer (PM block at 600h)         HOW 0  runs
;   CLOCK 1  HPET's main counter                   HOW 0  runs      1  ENABLE is 0
;   CLOCK 2  local APIC's timer, current count     HOW 0  one-shot  1  initial count 0, masked    2  one-shot, at its end
;                                                      3  periodic  4  x2APIC, by RDMSR      5  the same, count 0
;                                                      6  the TSC deadline, by RDMSR         7  in TSC-deadline mode
;   CLOCK 3  RTC: the second                       HOW 0  runs      1  SET is 1     2  the divider is held in reset
;   CLOCK 4  RTC: update in progress               HOW as CLOCK 3
;   CLOCK 5  RTC: the periodic flag                HOW 0  runs      1  no rate      2  the divider is held in reset
;   CLOCK 6  RTC: the alarm flag                   HOW 0  each second                1  an alarm at no time
%ifndef CLOCK
%define CLOCK 0
%define HOW 0
%endif
%include "guest.inc"
bits 16
org 0
rom:
LAPIC   equ 0xfee00000
HPETB   equ 0xfed00000
PM      equ 0x600

start:
    cli
    o32 lgdt [cs:gdtr]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp dword 8:flat + ROM

align 8
gdt:
    dq 0
    SEGMENT 0, 0xfffff, 0x9b, 0xc
    SEGMENT 0, 0xfffff, 0x93, 0xc
gdtr:
    dw gdtr - gdt - 1
    dd gdt + ROM

bits 32
; Behind each read: go round again; by WORK, so that a round takes as long as a driver's.
%macro again 2                  ; condition to go on by, label
%ifdef READS
    j%1 %%on
    jmp moved
%%on:
    dec ebp
    jnz %2
    jmp stands
%else
    j%1 %2
    jmp moved
%endif
%endmacro
%macro WORK 0
  %if CLOCK < 3
    times 24 nop
  %else
    times 900 nop
  %endif
%endmacro

%macro pciw 2                   ; register of function 3 of device 1, value
    mov eax, 0x80000b00 | (%1)
    mov dx, 0xcf8
    out dx, eax
    mov dx, 0xcfc
    mov eax, %2
    out dx, eax
%endmacro

%macro rtcw 2                   ; register, value
    mov al, %1
    out 0x70, al
    mov al, %2
    out 0x71, al
%endmacro

%macro rtcr 1                   ; register: AL
    mov al, %1
    out 0x70, al
    in al, 0x71
%endmacro

%macro RESTART 0                ; the next second begins half a second from now
    rtcw 10, 0x66
    rtcw 10, 0x26
%endmacro

flat:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7000
%ifdef READS
    mov ebp, READS
%endif

%if CLOCK == 0
    pciw 0x40, PM | 1           ; PMBA
    pciw 0x80, 1                ; PMREGMISC: PMIOSE
    mov dx, PM + 8
    in eax, dx
    mov ebx, eax
poll:
    WORK
    in eax, dx
    sub eax, ebx
    and eax, 0xffffff           ; it may have 24 bits
    cmp eax, 3579545 / 125      ; 8 ms
    again b, poll
%elif CLOCK == 1
    mov dword [HPETB + 0x10], HOW ^ 1
    mov ebx, [HPETB + 0xf0]
poll:
    WORK
    mov eax, [HPETB + 0xf0]
    sub eax, ebx
    cmp eax, 800000             ; 8 ms of 10 ns
    again b, poll
%elif CLOCK == 2
  %if HOW == 4 || HOW == 5
    mov ecx, 0x1b               ; IA32_APIC_BASE: EXTD
    rdmsr
    or ah, 4
    wrmsr
    %macro apicw 2
    mov ecx, 0x800 + (%1 >> 4)
    mov eax, %2
    xor edx, edx
    wrmsr
    %endmacro
    %macro apicr 1
    mov ecx, 0x800 + (%1 >> 4)
    rdmsr
    %endmacro
  %else
    %macro apicw 2
    mov dword [LAPIC + %1], %2
    %endmacro
    %macro apicr 1
    mov eax, [LAPIC + %1]
    %endmacro
  %endif
    apicw 0xf0, 0x1ff           ; SVR: on
    apicw 0x3e0, 3              ; divide by 16
  %if HOW == 3
    apicw 0x320, 0x30030        ; LVT timer: periodic, masked
  %elif HOW >= 6
    apicw 0x320, 0x50030        ; TSC-deadline, masked
  %else
    apicw 0x320, 0x10030        ; one-shot, masked
  %endif
  %if HOW == 1 || HOW == 5
    apicw 0x380, 0
  %elif HOW == 6
    rdtsc
    add eax, 8000000            ; 8 ms of 1 GHz
    adc edx, 0
    mov ecx, 0x6e0              ; IA32_TSC_DEADLINE: 0 when it has come
    wrmsr
    jmp poll
  %elif HOW == 2
    apicw 0x380, 16
    mov ecx, 100000
    loop $
  %else
    apicw 0x380, 500000         ; 8 ms by a clock of 1 GHz
  %endif
    apicr 0x390
    mov ebx, eax
poll:
    WORK
  %if HOW == 6
    rdmsr
  %else
    apicr 0x390
  %endif
  %if HOW == 0 || HOW == 4 || HOW == 6
    test eax, eax               ; down to 0
    again nz, poll
  %elif HOW == 3
    cmp eax, ebx                ; up again: a period is over
    mov ebx, eax
    again be, poll
  %else
    test eax, eax
    again z, poll
  %endif
%elif CLOCK == 3
  %if HOW == 1
    rtcw 11, 0x82
  %elif HOW == 2
    rtcw 10, 0x66
  %else
    RESTART
  %endif
    rtcr 0
    mov bl, al
poll:
    WORK
    rtcr 0
    cmp al, bl
    again e, poll
%elif CLOCK == 4
  %if HOW == 1
    rtcw 11, 0x82
  %elif HOW == 2
    rtcw 10, 0x66
  %else
    RESTART
  %endif
poll:
    WORK
    rtcr 10
    test al, 0x80
    again z, poll
%elif CLOCK == 5
    rtcw 11, 0x42               ; PIE: QEMU has no flag without it
  %if HOW == 0
    rtcw 10, 0x26               ; 1024 Hz
    mov ecx, 8
  %elif HOW == 1
    rtcw 10, 0x20
  %else
    rtcw 10, 0x66
  %endif
    rtcr 12
    rtcr 12                     ; its flags are clear
poll:
    WORK
    rtcr 12
    test al, 0x40
  %if HOW == 0
    jz poll
    dec ecx                     ; as often as 8 ms have
    again nz, poll
  %else
    again z, poll
  %endif
%elif CLOCK == 6
    RESTART
    rtcw 11, 0x02
  %if HOW == 1
    rtcw 1, 0x77
    rtcw 3, 0x77
    rtcw 5, 0x77
  %else
    rtcw 1, 0xff
    rtcw 3, 0xff
    rtcw 5, 0xff
  %endif
    rtcr 12
    rtcr 12
poll:
    WORK
    rtcr 12
    test al, 0x20
    again z, poll
%endif

stands:
    call mark32
    db 'stands', 0
    jmp ended
moved:
    call mark32
    db 'moved', 0
ended:
    mov al, 0
    jmp finish32

    GUEST_SERVICES 32
    RESET_VECTOR start
