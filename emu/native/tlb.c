/* The size of the TLB. Unicorn makes it larger or smaller when it is flushed, by how much of it was used. A guest that
 * touches much memory and never flushes would stay with the 256 entries of the beginning, and take a tenth of its time in
 * filling them. So it is flushed here when it is filled over and over, at the beginning of a block, where no entry is in
 * use. An entry may go at any time (SDM vol. 3A, 4.10.2.3), so a guest has no right to see anything of it. */
#include "fast.h"

/* It is too small when each entry was filled so often since the flush, up to a size. */
#define FILLED 8
#define LARGE 4096

void tlb_filled(engine *e, const tlb_fast *tlb)
{
    uint64_t entries = tlb->mask / sizeof(tlb_entry) + 1;

    if (e->fills != THRASHES && ++e->fills > FILLED * entries && entries < LARGE) {
        e->fills = THRASHES;
        e->control->leave |= LOOK;
    }
}

void grow_tlb(engine *e)
{
    e->fills = 0;
    real_tlb_flush(e->cpu);
}

/* CPUTLBDesc of each mode, below CPUTLBDescFast (include/exec/cpu-defs.h): how far the first is below, how large each is,
 * and where in it the beginning of a window is (int64_t, ns). */
#define DESCRIPTIONS 0x830
#define DESCRIPTION 0x2b8
#define WINDOW_BEGIN 0x10
/* Such a beginning that the window is over, and one that it is not, whatever the time is: it lasts 100 ms. */
#define OVER 0
#define NOT_OVER (INT64_MAX - 100000000)
/* Flushes in a window. */
#define WINDOW 64

/* Unicorn makes the TLB smaller where little of it was used in 100 ms of the host's time, and then other entries go than in
 * the run before: a guest that changes an entry of its page tables without INVLPG would see another run. Here a window is so
 * many flushes, not a time. */
static void hold_windows(const engine *e, int64_t begin)
{
    uint8_t *first = (uint8_t *)e->env + at.env_tlb - DESCRIPTIONS;

    for (int mode = 0; mode < MMU_MODES; mode++)
        AT(int64_t, first + mode * DESCRIPTION, WINDOW_BEGIN) = begin;
}

REPLACES void tlb_flush_by_mmuidx_x86_64(void *cpu, uint16_t modes)
{
    engine *e = engine_of_cpu(cpu);

    if (e)
        hold_windows(e, ++e->tlb_flushes % WINDOW ? NOT_OVER : OVER);
    real_tlb_flush_by_mmuidx(cpu, modes);
}

/* All of the modes' TLB is flushed where the page may be of a large one. */
REPLACES void tlb_flush_page_by_mmuidx_x86_64(void *cpu, uint64_t linear, uint16_t modes)
{
    const engine *e = engine_of_cpu(cpu);

    if (e)
        hold_windows(e, NOT_OVER);
    real_tlb_flush_page_by_mmuidx(cpu, linear, modes);
}

REPLACES void tlb_flush_x86_64(void *cpu)
{
    engine *e = engine_of_cpu(cpu);

    if (e && e->keeps_tlb)
        return;
    if (e)
        e->fills = 0;
    real_tlb_flush(cpu);
}

/* Unicorn flushes the TLB when PE or WP change, and with it forgets where the next block is. Without paging the TLB knows
 * neither of them, and the block is looked up by the mode that it was made for: firmware that goes to protected mode and
 * back with each call kept filling both. In system management mode other memory may be behind an address. */
REPLACES void cpu_x86_update_cr0_x86_64(void *env, uint32_t value)
{
    engine *e = look_behind(env);

    if (e)
        e->keeps_tlb = !((AT(uint64_t, env, at.env_cr) | value) & CR0_PG) && !(AT(uint32_t, env, at.env_hflags) & HF_SMM);
    real_cpu_x86_update_cr0(env, value);
    if (e)
        e->keeps_tlb = 0;
}
