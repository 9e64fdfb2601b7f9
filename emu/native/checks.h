/* Segment checks: what an instruction names in memory, and when that has to be looked at before it executes. */
#ifndef V2E_CHECKS_H
#define V2E_CHECKS_H

#include "fast.h"

#include <stddef.h>

#define NONE 0xff
#define LONGEST 15
#define VEX 4 /* in `form`; VEX.pp is added where the instruction is known */
#define REFERENCES 80 /* ENTER with 31 levels has 63 */
enum { READS = 1, WRITES = 2, XLAT = 4, REPEATED = 8 };
enum { BRANCH_NONE, BRANCH_ALWAYS, BRANCH_CONDITION, BRANCH_LOOP, BRANCH_OPERAND, BRANCH_RETURN, BRANCH_FAR };

/* One memory operand; shared with Python (emu/unicorn_fast_checks.py). NONE: no such register. */
struct reference {
    uint8_t segment, kind;
    uint16_t size;
    uint8_t base, index, scale, bits;
    uint32_t displacement, mask;
};

struct instruction {
    uint32_t opcode, immediate, address_mask, stack_mask;
    uint8_t length, operand_size, reg, rm, branch, condition, repeat, count;
    uint16_t extension; /* of emu/x86/vectors.py, a bit */
    uint8_t lock, form; /* LOCK stands before it; its mandatory prefix, as an index: none, 66, F3, F2; VEX is added */
    uint8_t relative;   /* its displacement is added to RIP */
    uint8_t unknown;    /* 64-bit code, and VEX: only its opcode and prefixes are known */
    uint8_t stack_size; /* of what it pushes and pops; 8 in 64-bit code */
    uint8_t narrow;     /* 64-bit code: its addresses have 32 bits */
    uint8_t wide;       /* the same: its operands have 64, by REX.W */
    struct reference references[REFERENCES];
};

/* Of an opcode: access r w m c -, or G X S for the other tables; size and immediate by letter. */
struct spec {
    char access, size, immediate;
};
/* The bits of emu/x86/vectors.py that are used by name here. */
enum {
    EXTENSION_SSE = 2,
    EXTENSION_SSE2 = 4,
    EXTENSION_SSE3 = 8,
    EXTENSION_SSSE3 = 256,
    EXTENSION_SSE41 = 512,
    EXTENSION_SSE42 = 1024,
    EXTENSION_AES = 2048,
    EXTENSION_PCLMULQDQ = 4096,
    EXTENSION_POPCNT = 8192,
    EXTENSION_MOVBE = 16384,
    EXTENSION_NONE = 0x8000, /* which no model has: another form of an opcode with forms */
    EXTENSION_BMI1 = 0x10000,
    EXTENSION_BMI2 = 0x20000,
    EXTENSION_CMOV = 0x40000,
    EXTENSION_CX8 = 0x80000,
    EXTENSION_CX16 = 0x100000,
    EXTENSION_FXSR = 0x200000,
    EXTENSION_CLFLUSH = 0x400000,
    EXTENSION_ADX = 0x800000
};
#define GROUPS 13
#define SSE_FORMS 18
struct maps {
    struct spec one_byte[256], two_byte[256];
    uint8_t modrm[2][256];
    struct {
        uint32_t opcode;
        struct spec specs[8];
    } groups[GROUPS];
    struct spec x87[8][8];
    struct {
        uint32_t opcode;
        struct spec specs[4];
    } sse[SSE_FORMS];
    uint16_t extensions[256][4], fences[2][8];
};

int decode(const uint8_t *code, int length, int bits, int stack_bits, struct instruction *in);

/* The effective address of an operand of 16- or 32-bit code. */
static inline uint32_t effective(void *env, const struct reference *ref)
{
    const uint64_t *regs = registers(env);
    uint32_t value = ref->displacement;

    if (ref->base != NONE)
        value += (uint32_t)regs[ref->base];
    if (ref->index != NONE)
        value += (uint32_t)regs[ref->index] * ref->scale;
    if (ref->kind & XLAT)
        value += regs[AX] & 0xff;
    if (ref->bits != NONE) { /* SDM vol. 2A, "BT": the operand is taken from the element that holds the bit */
        int32_t bit = ref->size == 2 ? (int16_t)regs[ref->bits] : (int32_t)regs[ref->bits];

        value += (uint32_t)((bit >> (ref->size == 2 ? 4 : 5)) * ref->size);
    }
    return value & ref->mask;
}

/* ---- paging.c */

/* What addresses of an instruction's operands depend on besides registers: `next` is RIP behind it where that is added. */
struct addressing {
    uint64_t next;
    uint8_t bits, narrow;
};
static inline struct addressing addressing_of(const struct instruction *in, int bits, uint64_t pc)
{
    return (struct addressing){in->relative ? pc + in->length : 0, (uint8_t)bits, in->narrow};
}
enum { TOUCH = 1, TOUCH_ON_TWO_PAGES };
uint64_t linear_address(void *env, const struct reference *ref, struct addressing where);
int touched_first(const struct instruction *in);
int bytes_at(void *env, uint64_t pc, uint64_t host, uint8_t *bytes);

/* ---- alignment.c */

/* Of the first reference: one less than what its address is to be a multiple of, behind `offset` bytes that are a word.
 * That of others goes by their size. `asked`: there is one that may lie wrong. */
struct alignment {
    uint8_t mask, offset, asked;
};
struct alignment alignment_of(const struct instruction *in, uint32_t flags);
int alignment_checked(void *env);

/* ---- checks.c */
int violation(const engine *e, const struct reference *ref);

/* ---- narrow.c */
struct narrow {
    uint16_t opcode; /* 0: another instruction */
    uint8_t size, reg, rm, sums; /* bytes of the operand; registers, where there are; CRC32 */
};
int is_narrow(const struct instruction *in);
__attribute__((noreturn)) void execute_narrow(engine *e, const struct narrow *n, const struct reference *ref,
                                              uint64_t host);

/* ---- precedence.c */
uint8_t precedence_of(const struct instruction *in);
int comes_first(void *env, uint8_t what, uint32_t operand_size);
int calls_far(const struct instruction *in, uint32_t flags);

/* ---- encodings.c */
int is_near_branch(uint32_t opcode, uint32_t reg);
int is_undefined(const struct instruction *in, uint32_t denied);
int wants_alignment(const struct instruction *in, uint32_t denied);
int keeps_registers(const struct instruction *in);
int is_vector(const struct instruction *in);
int is_x87(const struct instruction *in);
int is_fcmov(const struct instruction *in);
int is_mmx(const struct instruction *in);
int enters_mmx(const struct instruction *in);
int waits_for_x87(const struct instruction *in);
int stores_behind_flags(const struct instruction *in);
int wants_no_emulation(const struct instruction *in);
int loses_flags_locked(const struct instruction *in);
int64_t drops_too_little(const struct instruction *in);

#endif
