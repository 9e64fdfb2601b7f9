/* What v2e emits TCG operations with: numbers of QEMU 5.0 as Unicorn 2.1.4 is built. A build with others is refused by
 * its build ID (emu/unicorn_helper.py). */
#ifndef V2E_TCG_H
#define V2E_TCG_H

/* Opcodes (include/tcg/tcg-opc.h). INSN_START begins each instruction's part of a block; its arguments are the linear
 * address and the state of the flags. */
enum {
    SET_LABEL = 1,
    BR = 3,
    MOV_I64 = 63,
    MOVI_I64 = 64,
    LD_I64 = 73,
    ST16_I64 = 75,
    ST32_I64 = 76,
    ST_I64 = 77,
    ADD_I64 = 78,
    SUB_I64 = 79,
    AND_I64 = 87,
    OR_I64 = 88,
    SHL_I64 = 90,
    NEG_I64 = 114,
    INSN_START = 129
};

/* The type of a temporary, and conditions (include/tcg/tcg.h). */
enum { TCG_I64 = 1, LESS = 2, NOT_ABOVE = 12 };

/* In TCGContext: how many temporaries and operations the block being translated has (int). */
#define NB_TEMPS 0x30
#define NB_OPS 0x38
/* In TCGContext: the temporaries that are the general registers, by their distance from it. */
#define CPU_REGS 0x9998
/* The same: the bases of ES, CS, SS, DS, FS and GS. */
#define CPU_SEG_BASE 0x9b58
/* The temporary that is the CPU's state, the first of them. */
#define CPU_ENV 0x388
/* In an operation: its arguments. */
#define OP_ARGUMENTS 0x18

#endif
