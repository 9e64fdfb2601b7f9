/* A CPU's state in one flat structure, for those who move it between two CPUs without taking it apart in Python: all
 * that a hypervisor's CPU may have changed. emu/packed.py has the same layout, in units and with the meaning of
 * emu/x86/state.py, and says which fields are what. Little-endian, each field at a multiple of its size. */
#ifndef V2E_PACKED_H
#define V2E_PACKED_H

#include <stdint.h>

struct packed_segment {
    uint64_t base;
    uint32_t limit, selector, access, pad; /* access rights as VMX has them (SDM vol. 3C, table 25-2) */
};

struct packed_table {
    uint64_t base, limit;
};

enum { PACKED_MSRS = 9, PACKED_FX = 512 };

struct packed {
    uint64_t regs[16], rip, rflags;      /* in the order of their encoding */
    struct packed_segment segments[8];   /* ES CS SS DS FS GS LDTR TR */
    struct packed_table gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer;
    uint64_t dr[8];                      /* 4 and 5 are 0 */
    uint64_t msrs[PACKED_MSRS];          /* SYSENTER_CS, _ESP, _EIP, STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE, TSC_AUX */
    uint64_t tsc_adjust;
    uint8_t shadow, nmi_blocked, halted, a20, pad[4];
    uint16_t fcs, fds, pad2[2];          /* the pointers' selectors, for which the 64-bit FXSAVE image has no place */
    uint8_t fx[PACKED_FX];               /* as FXSAVE64 stores it; MXCSR_MASK and what is reserved are 0 */
};

/* A state as a debugger looks at it: what follows from it as well, and what is not moved. */
struct flat {
    struct packed cpu;
    uint64_t linear_pc;                  /* of the next instruction */
    uint64_t pat, apic_base;             /* IA32_PAT; IA32_APIC_BASE is Python's to fill in */
    uint32_t code_bits, cpl, tags, pad;  /* width of the next instruction; privilege level; x87 tag word, 16 bits */
};

/* What of it has changed since it was packed; the rest always counts as changed. */
enum { PACKED_FPU = 1, PACKED_DEBUG = 2, PACKED_MSR = 4, PACKED_TSC = 8 };

/* Offsets of the FXSAVE image (SDM vol. 1, 10.5.1): FCW, FSW, the abridged FTW, FOP, FIP, FDP, MXCSR, ST0, XMM0. */
enum { FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_FOP = 6, FX_FIP = 8, FX_FDP = 16, FX_MXCSR = 24, FX_ST = 32, FX_XMM = 160 };

#define ACCESS_UNUSABLE 0x10000u
#define ACCESS_KEPT 0xf0ffu
#define ACCESS_PRESENT 0x80u

#endif
