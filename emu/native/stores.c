/* Stores to pages that hold code, which loaders' stubs and small programs make all the time: their data and their stack
 * lie beside their instructions.
 *
 * Unicorn's way looks for the region of memory, locks its pages, and asks each translation of the page where it lies.
 * Here the bytes that translations were made from are known, and a store beside them is just done. So is one that leaves
 * its bytes as they are, wherever: a stub that is called for one service again and again puts the same number into its
 * INT each time, and nothing has to be translated anew.
 */
#include "fast.h"

#include <string.h>

#define MODE_BITS 0xfu /* of what tells Unicorn's functions of an access: the way its address is translated */

static uint8_t *map_of(engine *e, uint64_t ram)
{
    return e->code_bytes + ram / PAGE * CODE_MAP;
}

static void add_bytes(engine *e, uint64_t ram, uint64_t count)
{
    uint8_t *map = map_of(e, ram);

    if (ram / PAGE < e->pages)
        for (uint64_t i = ram % PAGE; count--; i++)
            map[i / 8] |= (uint8_t)(1u << i % 8);
}

/* `block` has been made from its bytes. */
void bytes_are_code(engine *e, const tb *block)
{
    uint64_t offset = block->pc % PAGE, here = PAGE - offset;

    if (here > block->size)
        here = block->size;
    if (block->page_addr[0] != EMPTY)
        add_bytes(e, (block->page_addr[0] & ~(PAGE - 1)) + offset, here);
    if (block->page_addr[1] != EMPTY)
        add_bytes(e, block->page_addr[1] & ~(PAGE - 1), block->size - here);
}

/* No translation is left of the page. Bytes of single ones stay in the map, which costs time and nothing else. */
void bytes_are_plain(engine *e, uint64_t ram)
{
    memset(map_of(e, ram), 0, CODE_MAP);
}

static int are_code(const uint8_t *map, uint64_t offset, int size)
{
    for (int i = 0; i < size; i++, offset++)
        if (map[offset / 8] >> offset % 8 & 1)
            return 1;
    return 0;
}

/* The page of RAM at `host` in this process, which has come into the TLB. Each that a store can come through is told
 * here again after whatever changed Unicorn's numbering of RAM, as that empties the TLB. */
void remember_home(engine *e, uint64_t host, uint64_t ram)
{
    struct home *home = &e->homes[host / PAGE % HOMES];

    home->host = host / PAGE;
    home->page = ram / PAGE;
}

/* True when the store has been done, as no translation depends on what it changes. */
static int stored(engine *e, uint64_t address, const void *value, int size, uint32_t access)
{
    const tlb_fast *tlb = &AT(tlb_fast, e->env, at.env_tlb) + (access & MODE_BITS);
    const tlb_entry *t = (tlb_entry *)((uint8_t *)tlb->table + (address / PAGE * sizeof *t & tlb->mask));
    uint64_t offset = address % PAGE, host = address + t->addend;
    const struct home *home = &e->homes[host / PAGE % HOMES];

    /* Another store than one to a page of RAM that is kept apart, or one that hooks watch. */
    if (t->write != ((address - offset) | TLB_NOTDIRTY) || offset + (uint64_t)size > PAGE || e->control->paging)
        return 0;
    /* One that has the page let through from now on. */
    if (home->host != host / PAGE || !e->has_code[home->page] || is_unmarked(e, host))
        return 0;
    if (memcmp((void *)host, value, (size_t)size)) {
        if (are_code(e->code_bytes + home->page * CODE_MAP, offset, size))
            return 0;
        memcpy((void *)host, value, (size_t)size);
    }
    return 1;
}

/* The long way of translated code's stores. */
#define STORE(name, type)                                                                                              \
    REPLACES void helper_##name##_mmu_x86_64(void *env, uint64_t address, type value, uint32_t access, uint64_t host)  \
    {                                                                                                                  \
        engine *e = engine_of_env(env);                                                                                \
                                                                                                                       \
        if (!e || !stored(e, address, &value, sizeof value, access))                                                   \
            real_helper_##name##_mmu(env, address, value, access, host);                                               \
    }
STORE(ret_stb, uint8_t)
STORE(le_stw, uint16_t)
STORE(le_stl, uint32_t)
STORE(le_stq, uint64_t)
