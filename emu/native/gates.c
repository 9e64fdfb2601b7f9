/* Events that Unicorn delivers wrongly, as far as that can be told from what the TLB leads to.
 *
 * IA-32e mode: events whose gate leads to an address that is not canonical, or whose stack has one, or whose frame is
 * pushed by ring 3. Unicorn enters the handler, or lets the push fault, or makes it as the supervisor; the event itself
 * is to fault (SDM vol. 2A, INT n; vol. 3A, 4.6). Here is only asked whether that may
 * be so, from what the TLB leads to: Python (emu/unicorn_transfers.py) says whether it is. */
#include "segments.h"

#define MMU_KERNEL 2
#define MMU_KERNEL_SMAP 0
#define IST_1 36 /* in the TSS: the first slot of the interrupt stack table, and RSP0 (vol. 3A, figure 7-11) */
#define RSP_0 4
#define GATE_32 14 /* an interrupt gate, or with the lowest bit set a trap gate */
#define TSS_32 8    /* of the type of a TSS */

/* The eight bytes at a linear address; 0 when they cannot be seen without a page walk. */
static int seen(void *env, uint64_t linear, uint64_t *value)
{
    int index = AT(uint32_t, env, at.env_hflags) & HF_SMAP ? MMU_KERNEL_SMAP : MMU_KERNEL;
    const tlb_fast *tlb = &AT(tlb_fast, env, at.env_tlb) + index;
    const tlb_entry *t = tlb->table + (linear / PAGE & tlb->mask / sizeof(tlb_entry));

    if (t->read != (linear & ~(PAGE - 1)) || linear % PAGE > PAGE - sizeof *value)
        return 0;
    *value = *(const uint64_t *)(linear + t->addend);
    return 1;
}

/* Whether the handler stays in its caller's ring, or that cannot be seen. */
static int conforming(void *env, uint32_t selector)
{
    const struct segment *table = segment_of(env, selector & 4 ? LDT : GDT);
    uint64_t descriptor;

    if ((selector | 7) > table->limit)
        return 0;
    return !seen(env, table->base + (selector & ~7u), &descriptor) || descriptor >> 32 & SEG_CONFORMING;
}

/* True when the event `vector` may be refused for one of these reasons. */
API int v2e_fast_gate_unsure(void *env, uint32_t vector)
{
    const struct segment *idt = segment_of(env, IDT), *tr = segment_of(env, TR);
    uint64_t low, high, stack = AT(uint64_t, env, at.env_rsp), slot;

    if (legacy_mode(env) || vector * 16 + 15 > idt->limit)
        return 0;
    if (!seen(env, idt->base + vector * 16, &low) || !seen(env, idt->base + vector * 16 + 8, &high))
        return 1;
    if (!canonical((low & 0xffff) | low >> 48 << 16 | high << 32))
        return 1;
    slot = low >> 32 & 7;
    if (slot || AT(uint32_t, env, at.env_hflags) & HF_CPL) {
        if (!slot && (low >> 16 & 3 || conforming(env, low >> 16 & 0xffff))) /* it may be of another ring than 0 */
            return 1;
        if (!seen(env, tr->base + (slot ? IST_1 + 8 * (slot - 1) : RSP_0), &stack))
            return 1;
    }
    return !canonical(stack & ~15ull);
}

/* Protected mode: true when Unicorn delivers the event `vector` rightly for sure, as it goes through a gate of 32 bits to
 * a stack of 4 GiB. What is asked is what `Transfers._usual` asks, which is about the rest. */
int gate_is_usual(void *env, uint32_t vector)
{
    const struct segment *idt = segment_of(env, IDT), *tr = segment_of(env, TR), *table;
    uint64_t gate, code, stack, top;
    uint32_t selector, limit, dpl, cpl = AT(uint32_t, env, at.env_hflags) & HF_CPL;

    if (vector * 8 + 7 > idt->limit || !seen(env, (uint32_t)(idt->base + vector * 8), &gate))
        return 0;
    if (!(gate >> 47 & 1) || (gate >> 40 & 0x1e) != GATE_32)
        return 0;
    selector = gate >> 16 & 0xffff;
    table = segment_of(env, selector & 4 ? LDT : GDT);
    if ((selector | 7) > table->limit || !seen(env, (uint32_t)(table->base + (selector & ~7u)), &code))
        return 0;
    limit = (code & 0xffff) | (code >> 32 & 0xf0000);
    if (code >> 55 & 1)
        limit = limit << 12 | 0xfff;
    if (((gate & 0xffff) | gate >> 48 << 16) > limit)
        return 0;
    dpl = code >> 45 & 3;
    if (code >> 42 & 1 || dpl >= cpl) /* the frame of ring 3 on its own stack is another matter */
        return is_flat(segment_of(env, SS)) && cpl < 3;
    if (!(tr->flags >> 8 & TSS_32) || 8 * dpl + 9 > tr->limit || !seen(env, (uint32_t)(tr->base + 8 * dpl + 4), &top))
        return 0;
    selector = top >> 32 & 0xffff;
    table = segment_of(env, selector & 4 ? LDT : GDT);
    if (!(selector & ~3u) || (selector & 3) != dpl || (selector | 7) > table->limit ||
        !seen(env, (uint32_t)(table->base + (selector & ~7u)), &stack))
        return 0;
    /* present, writable, expand-up, the handler's ring, G, and a limit of 4 GiB */
    return (stack >> 40 & 0xfe) == (0x92 | dpl << 5) && stack >> 55 & 1 && (stack & 0xffff) == 0xffff &&
           (stack >> 48 & 0xf) == 0xf;
}
