/* What checks.c is to look at before an instruction executes, as records.c has found it when that was translated; and what
 * a class of segment caches says (classes.c). */
#ifndef V2E_RECORD_H
#define V2E_RECORD_H

#include "checks.h"
#include "segments.h"

/* What a class knows of a segment register, two bits each, ES first; then two for fetches and branches. */
enum { DATA_CHECK, DATA_64K, DATA_FLAT, DATA_READ };
enum { CODE_CHECK, CODE_64K, CODE_FLAT };
#define CODE_AT 12
#define SIGNED_AM 0x4000u /* CR0.AM */
#define SIGNED_ALL 0x80000000u /* a signature in use is never 0 */
#define ALL_FLAT (SIGNED_ALL | CODE_FLAT << CODE_AT | 0xaaau)

/* One operand of a 64 KiB segment, which is what most checks are about: all that has to be asked is whether its last
 * byte is within the limit. */
struct quick {
    const uint64_t *base, *index; /* registers, or a zero */
    const uint32_t *limit;        /* NULL: there is more to look at */
    uint32_t displacement, mask;
    uint32_t shift, beyond; /* of the index; size - 1 */
};

enum { APART_NOT, APART_RETURN, APART_SYSRET, APART_VEX, APART_XSETBV };

/* A record: which instruction, and what of it. */
struct record {
    struct quick quick;
    engine *engine;
    uint64_t pc;
    uint8_t length;  /* 0: not decoded yet, as it lies on two pages */
    uint8_t branch, condition, rm, fetch, input, operand_size, bits, stack_bits, count, undefined;
    uint8_t aligned, relative; /* the first reference is to be at a multiple of 16; RIP is added to it */
    struct alignment alignment;
    uint8_t keeps; /* no general register is written */
    uint8_t first;   /* what comes before its operands are looked at (precedence.c) */
    uint8_t repeated;
    uint8_t touched; /* TOUCH and TOUCH_ON_TWO_PAGES: all references are touched before it (paging.c) */
    struct addressing addressing;
    uint8_t fcmov; /* 1 more than the number of its register, 0 for other instructions */
    struct narrow narrow;
    uint8_t shows_lock; /* Unicorn is shown its LOCK prefix */
    uint8_t waits;      /* for an exception of the x87 */
    uint8_t loads_base; /* LGDT and LIDT of 64-bit code */
    uint8_t apart;      /* APART_*: it may be executed, or is refused, by a function of its own */
    uint8_t told;       /* Python is told before it is executed (told.c) */
    uint8_t enters_mmx; /* 1 + the register that it writes: they are to become those of MMX; 0: they are not */
    uint32_t displacement, address_mask;
    struct reference references[];
};
#define RECORD_MOST (sizeof(struct record) + REFERENCES * sizeof(struct reference))

/* The bits of the counter of a repeated instruction. */
static inline uint64_t counter_mask(const struct record *r)
{
    return r->bits == 64 && !r->addressing.narrow ? UINT64_MAX : r->address_mask;
}

/* ---- alignment.c */
int misaligned(const struct record *r);

/* ---- far_return.c */
int may_wrap(const struct instruction *in, uint32_t flags);
void return_around_the_end(engine *e, uint32_t size, uint32_t dropped, uint64_t host);

/* ---- vex.c */
int is_vex_apart(const struct instruction *in, uint32_t flags);
void execute_vex(const struct record *r, uint64_t host);

/* ---- checks.c */
uint8_t byte_behind(engine *e, const struct record *r, int number, uint64_t host);

/* ---- classes.c */
int never_breaks(const struct reference *ref, uint32_t sign);

/* ---- told.c */
uint32_t told_classes(const engine *e, const uint8_t *code, int length, int bits);
void tell(const struct record *r, uint64_t host);

/* ---- records.c */
int decode_for(struct record *r, uint8_t *bytes, int length, uint32_t sign, uint32_t flags);

/* Of the first reference; what RIP adds to it is known, as the instruction stands where it is translated for. */
static inline uint32_t displacement_of(const struct record *r)
{
    return r->references[0].displacement + (r->relative ? (uint32_t)r->pc + r->length : 0);
}

#endif
