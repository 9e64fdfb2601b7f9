/* Which pages of its memory the guest has written: a mark a page, for checkpoints.
 *
 * A page without mark is kept TLB_NOTDIRTY in all write entries of the TLB, as a page that holds code is: the first store
 * takes the long way, through tb_invalidate_phys_page_fast (code_pages.c), which marks the page and lets the stores behind
 * it take the short way. So a running guest pays one long store for each page and checkpoint, and nothing else.
 */
#include "fast.h"

#include <string.h>

/* True when the page at `host` is one whose first write is waited for. */
int is_unmarked(const engine *e, uint64_t host)
{
    uint64_t page = (host - e->marked) / PAGE;

    return page < e->marked_pages && (!e->marks[page] || (e->traces && !e->traces[page]));
}

void mark_written(const engine *e, uint64_t host)
{
    uint64_t page = (host - e->marked) / PAGE;

    if (page >= e->marked_pages)
        return;
    e->marks[page] = 1;
    if (e->traces)
        e->traces[page] = 1;
}

/* Marks have been cleared: let stores through every TLB entry take the long way again. */
API void v2e_fast_rearm(engine *e)
{
    if (e->display && e->display->direct) /* its pages stand in the TLB under another address: see expose_display */
        real_tlb_flush(e->cpu);
    real_tlb_reset_dirty(e->cpu, e->marked, e->marked_pages * PAGE);
}

/* The guest's memory is the `pages` pages from `host` in this process; mark what is written from now on in `marks`. */
API void v2e_fast_mark_writes(engine *e, uint64_t host, uint64_t pages, uint8_t *marks, const struct place *places,
                              uint32_t place_count)
{
    e->marks = marks;
    e->marked = host;
    e->marked_pages = pages;
    e->places = places;
    e->place_count = place_count;
    v2e_fast_rearm(e);
}

/* Mark the same pages at `traces` too, from now on; NULL: no more. */
API void v2e_fast_trace_writes(engine *e, uint8_t *traces)
{
    e->traces = traces;
    v2e_fast_rearm(e);
}

/* ---- What somebody else has written, past this engine */

/* The bytes [first, end) have been written, counted as a place's own `start` is: drop the translations made from what
 * the place has of them. */
static void part_changed(engine *e, const struct place *place, uint64_t start, uint64_t first, uint64_t end)
{
    uint64_t from = first > start ? first : start;
    uint64_t stop = end < start + place->size ? end : start + place->size;

    if (from < stop)
        v2e_fast_memory_changed(e, place->ram + from - start, place->ram + stop - start);
}

/* The bytes [host, end) of the guest's memory in this process: drop the translations made from them. */
API void v2e_fast_host_changed(engine *e, uint64_t host, uint64_t end)
{
    for (uint32_t i = 0; i < e->place_count; i++)
        part_changed(e, e->places + i, e->places[i].host, host, end);
}

/* The bytes [first, end) of physical memory have been written: the same. */
API void v2e_fast_physical_changed(engine *e, uint64_t first, uint64_t end)
{
    for (uint32_t i = 0; i < e->place_count; i++)
        part_changed(e, e->places + i, e->places[i].base, first, end);
}

/* Another engine has written the pages that are marked at its `traces`: drop the translations made from them, and clear
 * the marks. */
void take_traces(engine *e, uint8_t *traces)
{
    uint8_t *mark = traces, *end = traces + e->marked_pages;

    while ((mark = memchr(mark, 1, (uint64_t)(end - mark)))) {
        uint64_t host = e->marked + (uint64_t)(mark - traces) * PAGE;

        v2e_fast_host_changed(e, host, host + PAGE);
        *mark = 0;
    }
}

/* ---- What the CPU stores by itself goes by physical addresses, past the TLB: the accessed and dirty bits of page-table
 * entries (target/i386/excp_helper.c), the state saved by SVM and SMM. */

static void mark_physical(const engine *e, uint64_t physical)
{
    for (uint32_t i = 0; i < e->place_count; i++)
        if (physical - e->places[i].base < e->places[i].size)
            mark_written(e, e->places[i].host + (physical - e->places[i].base));
}

#define MARKING(name, type)                                                                                            \
    REPLACES void name##_x86_64(void *cpu, uint64_t physical, type value)                                              \
    {                                                                                                                  \
        engine *e = engine_of_cpu(cpu);                                                                                \
                                                                                                                       \
        real_##name(cpu, physical, value);                                                                             \
        if (e) {                                                                                                       \
            mark_physical(e, physical);                                                                                \
            mark_physical(e, physical + sizeof(type) - 1);                                                             \
        }                                                                                                              \
    }
MARKING(x86_stb_phys, uint8_t)
MARKING(x86_stw_phys, uint32_t)
MARKING(x86_stl_phys, uint32_t)
MARKING(x86_stl_phys_notdirty, uint32_t)
MARKING(x86_stq_phys, uint64_t)
