/* How an SSE instruction is executed for the guest, and its flags taken: shared by sse.c and sse_flags.c. */
#ifndef V2E_SSE_H
#define V2E_SSE_H

#include "fast.h"

#include <string.h>

/* MXCSR (SDM vol. 1, 10.2.3): flags, DAZ, masks in the order of the flags, RC, FZ. */
#define FLAGS 0x3fu
#define BEFORE 7u /* of the flags those that are found before the operation: invalid, denormal, division by zero */
#define OVERFLOW 8u
#define UNDERFLOW 0x10u
#define PRECISION 0x20u
#define DAZ 0x40u
#define MASKS_SHIFT 7
#define MASKS (FLAGS << MASKS_SHIFT)
#define RC_SHIFT 13
#define RC (3u << RC_SHIFT)
#define FZ 0x8000u

typedef float vector __attribute__((vector_size(16), aligned(16)));

/* The numbers of a vector: how many, of how many bytes. */
enum shape { NO_NUMBER, SINGLE, SINGLES, TWO_SINGLES, DOUBLE, DOUBLES };

/* What may overflow, number by number. */
enum operation { NO_OPERATION, ADD, SUBTRACT, ADD_SUBTRACT, MULTIPLY, DIVIDE, NARROW };

/* An operation done: its operands and what came of it. */
struct done {
    enum operation operation;
    enum shape shape;
    const void *first, *second, *result;
};

static inline vector load(const void *from)
{
    vector v;

    memcpy(&v, from, sizeof v);
    return v;
}

/* The guest's MXCSR without flags, everything masked. FZ is ignored while underflow is unmasked (vol. 1, 10.2.3.3). */
static inline uint32_t masked(const void *env)
{
    uint32_t mxcsr = AT(uint32_t, env, at.env_mxcsr);

    if (!(mxcsr >> MASKS_SHIFT & UNDERFLOW))
        mxcsr &= ~FZ;
    return (mxcsr & (FZ | RC | DAZ)) | MASKS;
}

/* Execute `instruction` with the operands of the assembler's order s, d; `now` is MXCSR before and behind it. */
#define EXECUTE(instruction, to, from, now)                                                                            \
    do {                                                                                                               \
        uint32_t old_;                                                                                                 \
                                                                                                                       \
        __asm__ volatile("stmxcsr %[old]\n\tldmxcsr %[mxcsr]\n\t" instruction                                          \
                         "\n\tstmxcsr %[mxcsr]\n\tldmxcsr %[old]"                                                      \
                         : [d] "+x"(to), [old] "=m"(old_), [mxcsr] "+m"(now)                                           \
                         : [s] "x"(from));                                                                             \
    } while (0)

void settle(void *env, uint32_t flags, struct done d, uint64_t host);

#endif
