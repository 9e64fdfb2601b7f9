/* Segment checks: what an instruction names in memory, and when that has to be looked at before it executes. */
#ifndef V2E_CHECKS_H
#define V2E_CHECKS_H

#include "fast.h"

#include <stddef.h>

#define NONE 0xff
#define LONGEST 15
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
    uint8_t lock, form; /* LOCK stands before it; its mandatory prefix, as an index: none, 66, F3, F2 */
    uint8_t relative;   /* its displacement is added to RIP */
    uint8_t unknown;    /* 64-bit code: only its opcode and prefixes are known */
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
    EXTENSION_PCLMULQDQ = 4096
};
#define GROUPS 9
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

/* ---- encodings.c */
int is_undefined(const struct instruction *in, uint32_t denied);
int wants_alignment(const struct instruction *in, uint32_t denied);
int keeps_registers(const struct instruction *in);
int is_vector(const struct instruction *in);
int is_x87(const struct instruction *in);
int is_fcmov(const struct instruction *in);

#endif
