/* What the selector of a far transfer names, and whether anything is wrong about that: asked of the descriptor tables before
 * Unicorn's own function goes there (SDM vol. 2A, CALL, IRET, JMP; vol. 2B, RET). A page fault is the instruction's. */
#include "targets.h"

#include "checks.h"
#include "segments.h"

#define DESCRIPTOR_CODE (SEG_NO_SYSTEM | SEG_CODE)
#define CALL_GATE_16 0x4
#define CALL_GATE_32 0xc
#define MMU_KERNEL 2
#define MMU_KERNEL_SMAP 0

/* True when `selector` names a task, a task gate or, in `gates`, a call gate. A page fault is the instruction's. */
int rare(void *env, uint32_t selector, int gates, uint64_t host)
{
    const struct segment *table = segment_of(env, selector & 4 ? LDT : GDT);
    int index = AT(uint32_t, env, at.env_hflags) & HF_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
    uint32_t access;

    selector &= 0xffff;
    if (selector < 4 || (selector | 7) > table->limit)
        return 0;
    access = real_cpu_ldl_mmuidx_ra(env, (uint32_t)(table->base + (selector & ~7u) + 4), index, host) >> 8 & 0x1f;
    return access == 1 || access == 3 || access == 5 || access == 9 || access == 11 ||
           (gates && (access == 4 || access == 12));
}

/* True when `offset` is beyond the code segment that `selector` names: #GP(0) in the transfer, if nothing else of it is
 * wrong (SDM vol. 2A, JMP, CALL, RET, IRET). */
int beyond(void *env, uint32_t selector, uint32_t offset, uint64_t host)
{
    const struct segment *table = segment_of(env, selector & 4 ? LDT : GDT);
    int index = AT(uint32_t, env, at.env_hflags) & HF_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
    uint32_t low, high, limit;

    selector &= 0xffff;
    if (selector < 4 || (selector | 7) > table->limit)
        return 0;
    low = real_cpu_ldl_mmuidx_ra(env, (uint32_t)(table->base + (selector & ~7u)), index, host);
    high = real_cpu_ldl_mmuidx_ra(env, (uint32_t)(table->base + (selector & ~7u) + 4), index, host);
    if ((high & DESCRIPTOR_CODE) != DESCRIPTOR_CODE)
        return 0;
    limit = (low & 0xffff) | (high & 0xf0000);
    if (high & SEG_GRANULAR)
        limit = limit << 12 | 0xfff;
    return offset > limit;
}

/* The descriptor of `selector`, a half of it; 0 where there is none. */
static uint32_t half_of_descriptor(void *env, uint32_t selector, uint32_t half, uint64_t host)
{
    const struct segment *table = segment_of(env, selector & 4 ? LDT : GDT);
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);
    uint64_t linear;

    selector &= 0xffff;
    if (selector < 4 || (selector | 7) > table->limit)
        return 0;
    linear = table->base + (selector & ~7u) + 4 * half;
    return real_cpu_ldl_mmuidx_ra(env, hflags & HF_LMA ? linear : (uint32_t)linear,
                                  hflags & HF_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL, host);
}

/* True when a far CALL of `selector`, or by a gate to it, goes to a code segment of this ring with nothing wrong about
 * it: it pushes its frame on the stack that there is. */
int calls_code(void *env, uint32_t selector, int by_gate, uint64_t host)
{
    uint32_t hflags = AT(uint32_t, env, at.env_hflags), cpl = hflags & HF_CPL, dpl;
    uint32_t high = half_of_descriptor(env, selector, 1, host);

    dpl = high >> SEG_DPL_SHIFT & 3;
    if ((high & DESCRIPTOR_CODE) != DESCRIPTOR_CODE || !(high & SEG_PRESENT))
        return 0;
    if (hflags & HF_LMA && high & SEG_LONG && high & SEG_BIG)
        return 0;
    return high & SEG_CONFORMING ? dpl <= cpl : dpl == cpl && (by_gate || (selector & 3) <= cpl);
}

/* In IA-32e mode: whether `selector` names a call gate to 64-bit code of this ring with nothing wrong about it, which
 * pushes two quadwords on the stack that there is (vol. 2A, CALL). */
int calls_by_gate_64(void *env, uint32_t selector, uint64_t host)
{
    uint32_t cpl = AT(uint32_t, env, at.env_hflags) & HF_CPL, high = half_of_descriptor(env, selector, 1, host);
    uint32_t dpl = high >> SEG_DPL_SHIFT & 3, code, target;

    if ((high >> 8 & 0x1f) != CALL_GATE_32 || !(high & SEG_PRESENT) || dpl < cpl || dpl < (selector & 3))
        return 0;
    target = half_of_descriptor(env, selector, 0, host) >> 16;
    code = half_of_descriptor(env, target, 1, host);
    dpl = code >> SEG_DPL_SHIFT & 3;
    return (code & DESCRIPTOR_CODE) == DESCRIPTOR_CODE && code & SEG_PRESENT && (code & (SEG_LONG | SEG_BIG)) == SEG_LONG &&
           (code & SEG_CONFORMING ? dpl <= cpl : dpl == cpl);
}

/* IA-32e mode: true when `offset` is beyond the limit of the code segment `selector`, one that is not of 64-bit code. */
int beyond_in_64(void *env, uint32_t selector, uint32_t offset, uint64_t host)
{
    uint32_t high, limit;

    if (AT(uint32_t, env, at.env_hflags) & HF_CS64 && (selector & 0xffff) == segment_of(env, CS)->selector)
        return 0;
    high = half_of_descriptor(env, selector, 1, host);
    if (high & SEG_LONG)
        return 0;
    limit = (half_of_descriptor(env, selector, 0, host) & 0xffff) | (high & 0xf0000);
    if (high & SEG_GRANULAR)
        limit = limit << 12 | 0xfff;
    return offset > limit;
}

/* The bytes of each of the two pushes of a far CALL of protected mode that does not leave its ring; 0 for another, and
 * for one that something is wrong about. */
uint32_t size_of_pushes(void *env, uint32_t selector, uint32_t operand_size, uint64_t host)
{
    uint32_t cpl = AT(uint32_t, env, at.env_hflags) & HF_CPL, high, dpl, type;

    if (calls_code(env, selector, 0, host))
        return operand_size;
    if (!legacy_mode(env)) /* a gate's are on the stack of 64-bit code, which has no limit */
        return 0;
    high = half_of_descriptor(env, selector, 1, host);
    dpl = high >> SEG_DPL_SHIFT & 3;
    type = high >> 8 & 0x1f;
    if ((type != CALL_GATE_16 && type != CALL_GATE_32) || !(high & SEG_PRESENT) || dpl < cpl || dpl < (selector & 3))
        return 0;
    if (!calls_code(env, half_of_descriptor(env, selector, 0, host) >> 16, 1, host))
        return 0;
    return type == CALL_GATE_32 ? 4 : 2;
}

/* True when a return to the code segment `selector` is not refused for it. */
int returns_to_code(void *env, uint32_t selector, uint64_t host)
{
    uint32_t high = half_of_descriptor(env, selector, 1, host), dpl = high >> SEG_DPL_SHIFT & 3, rpl = selector & 3;

    if ((high & DESCRIPTOR_CODE) != DESCRIPTOR_CODE || !(high & SEG_PRESENT))
        return 0;
    return rpl >= (AT(uint32_t, env, at.env_hflags) & HF_CPL) && (high & SEG_CONFORMING ? dpl <= rpl : dpl == rpl);
}
