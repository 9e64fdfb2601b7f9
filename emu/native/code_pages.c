/* Pages that hold code.
 *
 * Stores to them must be noticed. Unicorn never lets a store into executable memory take the short way again; here the
 * pages that hold code are known by their place in RAM, whichever linear addresses lead there.
 */
#include "fast.h"

#include <string.h>

static uint8_t *code_flag(engine *e, uint64_t ram)
{
    return ram / PAGE < e->pages ? &e->has_code[ram / PAGE] : NULL;
}

uint64_t host_of(engine *e, uint64_t ram)
{
    return (uint64_t)real_qemu_map_ram_ptr(e->uc, NULL, ram & ~(PAGE - 1)) & ~(PAGE - 1);
}

void page_has_code(engine *e, uint64_t ram)
{
    uint8_t *flag = code_flag(e, ram);

    if (flag && !*flag) {
        *flag = 1;
        if (exposed(e, ram))
            real_tlb_flush(e->cpu);
        else
            real_tlb_reset_dirty(e->cpu, host_of(e, ram), PAGE);
    }
}

/* Let stores by this entry take the short way, if it leads to the page at `host`. */
static int make_plain(tlb_entry *t, uint64_t host)
{
    uint64_t page = t->write & ~(PAGE - 1);

    if ((t->write & (PAGE - 1)) != TLB_NOTDIRTY || page + t->addend != host)
        return 0;
    t->write = page;
    return 1;
}

/* Stores to the page need not be noticed any more: let those through its TLB entries take the short way. The entry made
 * last for the page is most likely the one in use; any other one that a store comes through has all looked at. */
static void page_is_plain(engine *e, uint64_t ram)
{
    const tlb_fast *tlb = &AT(tlb_fast, e->env, at.env_tlb);
    uint64_t host = host_of(e, ram);
    int found = 0;

    for (int mode = 0; mode < MMU_MODES; mode++)
        found |= make_plain(tlb[mode].table + (e->linear[ram / PAGE] & tlb[mode].mask / sizeof(tlb_entry)), host);
    if (found)
        return;
    for (int mode = 0; mode < MMU_MODES; mode++) {
        uint64_t entries = tlb[mode].mask / sizeof(tlb_entry) + 1;

        for (tlb_entry *t = tlb[mode].table; entries--; t++)
            make_plain(t, host);
    }
}

REPLACES void tlb_unprotect_code_x86_64(void *uc, uint64_t ram)
{
    engine *e = engine_of_uc(uc);
    uint8_t *flag = e ? code_flag(e, ram) : NULL;

    if (flag) {
        *flag = 0;
        bytes_are_plain(e, ram);
        if (!is_unmarked(e, host_of(e, ram)))
            page_is_plain(e, ram);
    } else {
        real_tlb_unprotect_code(uc, ram);
    }
}

/* A store took the long way: to a page that holds code, to one whose code has gone since, or to one that was not written
 * since the last checkpoint. */
REPLACES void tb_invalidate_phys_page_fast_x86_64(void *uc, void *pages, uint64_t ram, int size, uint64_t host)
{
    engine *e = engine_of_uc(uc);
    uint8_t *flag = e ? code_flag(e, ram) : NULL;

    if (flag)
        mark_written(e, host_of(e, ram));
    if (flag && !*flag)
        page_is_plain(e, ram);
    else
        real_tb_invalidate_phys_page_fast(uc, pages, ram, size, host);
}

REPLACES void tlb_set_page_with_attrs_x86_64(void *cpu, uint64_t linear, uint64_t physical, uint32_t attributes,
                                             int protection, int mode, uint64_t size)
{
    engine *e = engine_of_cpu(cpu);

    real_tlb_set_page_with_attrs(cpu, linear, physical, attributes, protection, mode, size);
    if (e) {
        const tlb_fast *tlb = &AT(tlb_fast, e->env, at.env_tlb) + mode;
        uint64_t page = linear & ~(PAGE - 1);
        uint64_t entries = tlb->mask / sizeof(tlb_entry) + 1;
        tlb_entry *t = tlb->table + (page / PAGE & (entries - 1));

        tlb_filled(e, tlb);

        if (e->display)
            expose_display(e, physical & ~(PAGE - 1), page, t);
        if (t->write == (page | TLB_NOTDIRTY)) {
            uint64_t host = t->addend + page, ram = real_qemu_ram_addr_from_host(e->uc, (void *)host);
            uint8_t *flag = code_flag(e, ram);

            if (!flag)
                return;
            e->linear[ram / PAGE] = page / PAGE;
            remember_home(e, host, ram);
            if (!*flag && !is_unmarked(e, host))
                t->write = page;
        }
    }
}

/* Unicorn has the stores to a page take the long way at each translation made from it, and looks through the TLB for
 * that; `page_has_code` does so once. */
REPLACES void tlb_reset_dirty_by_vaddr_x86_64(void *cpu, uint64_t linear, uint64_t size)
{
    if (!engine_of_cpu(cpu))
        real_tlb_reset_dirty_by_vaddr(cpu, linear, size);
}

/* The number of the first page from `page` on that may have code in it, or `stop` or more where none does up to there. Most
 * have none, so eight are looked at at once. */
static uint64_t page_with_code(const engine *e, uint64_t page, uint64_t stop)
{
    const uint8_t *flags = e->has_code;
    uint64_t word;

    if (stop > e->pages)
        stop = e->pages;
    while (page + sizeof word <= stop) {
        memcpy(&word, flags + page, sizeof word);
        if (word)
            break;
        page += sizeof word;
    }
    while (page < stop && !flags[page])
        page++;
    return page;
}

/* The host wrote [first, end) of Unicorn's RAM numbering: drop translations made from it. */
API void v2e_fast_memory_changed(engine *e, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t page = page_with_code(e, first / PAGE, (end + PAGE - 1) / PAGE), next = (page + 1) * PAGE;

        if (first < page * PAGE)
            first = page * PAGE;
        if (first >= end)
            break;
        real_tb_invalidate_phys_range(e->uc, first, next < end ? next : end);
        first = next;
    }
}
