/* Memory of devices: what accesses to it reach first, as port I/O does in ports.c. */
#include "fast.h"

/* A range of it: what Python has there, and its user data. Shared with emu/unicorn_memory.py. */
struct hole {
    uint64_t (*read)(void *uc, uint64_t offset, unsigned size, void *base);
    void (*write)(void *uc, uint64_t offset, unsigned size, uint64_t value, void *base);
    uint64_t base; /* the physical address */
};

/* uc_mmio_map's functions, with the hole as user data. */
API uint64_t v2e_mmio_read(void *uc, uint64_t offset, unsigned size, void *data)
{
    const struct hole *hole = data;
    engine *e = engine_of_uc(uc);
    uint64_t value;

    if (e && shared_memory(e, hole->base + offset, size, &value)) {
        note_answer(e);
        return value;
    }
    return hole->read(uc, offset, size, (void *)hole->base);
}

API void v2e_mmio_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *data)
{
    const struct hole *hole = data;
    engine *e = engine_of_uc(uc);

    if (e && shared_memory_written(e, hole->base + offset, size, value))
        note_answer(e);
    else
        hole->write(uc, offset, size, value, (void *)hole->base);
}
