/* Execution where no memory is: nothing answers, the bus gives ones, and FF FF is #UD. Unicorn fetches code from memory
 * alone, and would end the run. So the translator is shown the bytes (shown.c), and what it makes of them is executed, and
 * counted and stopped at, as any block; it is of one instruction, and is not kept. Where a device answers the run ends
 * with Unicorn's error: nothing is read from it. */
#include "fast.h"

/* True when the byte at linear `pc`, which is about to be translated, is nowhere. Raises the page fault of its fetch. */
int is_nothing(engine *e, uint64_t pc)
{
    const tlb_fast *tlb;
    const tlb_entry *t;

    if (likely(real_get_page_addr_code(e->env, pc) != EMPTY))
        return 0;
    tlb = &AT(tlb_fast, e->env, at.env_tlb) + mmu_index(e->env);
    t = tlb->table + (pc / PAGE & tlb->mask / sizeof(tlb_entry));
    return bus_floats(e, (t->physical & ~(PAGE - 1)) | pc % PAGE);
}
