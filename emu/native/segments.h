/* The descriptor caches, and what the CPU's mode makes of them. */
#ifndef V2E_SEGMENTS_H
#define V2E_SEGMENTS_H

#include "fast.h"

/* SegmentCache of QEMU (target/i386/cpu.h); env has them in the order of x86.h. */
struct segment {
    uint32_t selector, pad;
    uint64_t base;
    uint32_t limit, flags;
};

static inline struct segment *segment_of(void *env, int index)
{
    return &AT(struct segment, env, at.env_segs) + index;
}

/* Bytes 0 to `limit` and nothing else can be reached, which are 4 GiB. */
static inline int is_flat(const struct segment *s)
{
    return s->limit == FLAT && !(s->flags & SEG_EXPAND_DOWN);
}

/* Of an address in the stack segment `s`. */
static inline uint32_t stack_mask(const struct segment *s)
{
    return s->flags & SEG_BIG ? UINT32_MAX : 0xffff;
}

/* In real and V86 mode CS may be read and written, whatever its cache says; limits hold (SDM vol. 3A, 21.1.1). */
static inline int real_mode(void *env)
{
    return !(AT(uint32_t, env, at.env_hflags) & HF_PE) || AT(uint64_t, env, at.env_eflags) & EFLAGS_VM;
}

/* Of 48 bits (SDM vol. 1, 3.3.7.1). */
static inline int canonical(uint64_t address)
{
    int64_t high = (int64_t)address >> 47;

    return !high || high == -1;
}

static inline int paging(void *env)
{
    return AT(uint64_t, env, at.env_cr) >> 31 & 1;
}

/* IA-32e mode is off. */
static inline int legacy_mode(void *env)
{
    return !(AT(uint32_t, env, at.env_hflags) & HF_LMA);
}

/* Ports are not free for all: IOPL, and where that does not do the TSS's bitmap (SDM vol. 1, 19.5). */
static inline int asks_for_ports(void *env)
{
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);
    uint64_t eflags = AT(uint64_t, env, at.env_eflags);

    return hflags & HF_PE && (eflags & EFLAGS_VM || (hflags & HF_CPL) > (eflags >> EFLAGS_IOPL_SHIFT & 3));
}

#endif
