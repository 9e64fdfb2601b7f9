/* Accesses that have to be alone: of devices, and of what a watchpoint's hook watches.
 *
 * A device must see the exact count, and a stop it asks for must come right behind its instruction. So it is accessed
 * from blocks of one instruction only: any other block is left before anything has happened, and where it has to be
 * cut is remembered for all later translations.
 */
#include "fast.h"

/* `host` is an address in the running block. Returns when it is not (an access from within the CPU's own work). */
static void retry_alone(engine *e, uint64_t host)
{
    tb *block = real_tcg_tb_lookup(e->tcg, host);
    uint64_t pc = 0, previous = EMPTY;
    int index = block ? index_of_host(block, host, &pc) : -1;
    const slot *s = running(e);

    if (index < 0 || !s || s->block != block)
        return;
    e->retried++;
    block_was_wasted(e, block, index);
    real_cpu_restore_state(e->cpu, host, 1);
    e->control->remaining += block->icount - index;
    if (index) {
        index_of_pc(block, pc, &previous);
        e->control->last = previous;
        remember_cut(e, block->pc, block->flags, index);
    } else if (s->breakpoint) {
        keep_skip(e, block);
    }
    remember_cut(e, pc, block->flags, 1);
    e->control->running = 0;
    e->unwinding = e->synchronised = 0;
    if (!(block->cflags & CF_NOCACHE))
        real_tb_phys_invalidate(e->tcg, block, EMPTY);
    enable_hooks(e);
    leave_block(e);
}

/* To be called before a device access, from the running block's `host`. Returns where it may happen; EIP is then that of
 * the instruction, for whoever is asked about it. */
void be_alone(engine *e, uint64_t host)
{
    const slot *s = running(e);

    if (!s)
        return;
    if (!s->io)
        retry_alone(e, host);
    else
        *e->eip = s->eip;
}

REPLACES void cpu_io_recompile_x86_64(void *cpu, uint64_t host)
{
    engine *e = engine_of_cpu(cpu);

    if (e)
        retry_alone(e, host);
    else
        real_cpu_io_recompile(cpu, host);
}

/* What a watchpoint's memory hook gets as user data: a callback, or, where that is NULL, what is watched: `length` bytes
 * from linear `first` on, where what begins at `physical` is seen at `linear`. */
struct memory_hook {
    engine *engine;
    void (*callback)(void *uc, int kind, uint64_t address, int size, int64_t value, void *number);
    uint64_t number, first, length, physical, linear;
};
#define MEM_WRITE 17 /* the hook's `kind` of a write */

/* An access close to a watchpoint: does it meet it? */
static void watched(const struct memory_hook *hook, int kind, uint64_t address, int size, uint64_t value)
{
    struct met *met = &hook->engine->cells->met;
    uint64_t linear = hook->linear + (address - hook->physical);

    if (linear < hook->first ? hook->first - linear >= (uint64_t)size : linear - hook->first >= hook->length)
        return;
    if (!met->kind)
        *met = (struct met){.linear = linear, .value = size < 8 ? value & ((1ull << 8 * size) - 1) : value,
                            .number = (uint32_t)hook->number, .size = (uint32_t)size,
                            .kind = kind == MEM_WRITE ? MET_WRITE : MET_READ};
    hook->engine->control->halt_run |= HALT_MET;
}

/* The hook itself. It is called before a store and behind a load, from where the access is tried again alone: then the
 * run can end right behind the instruction. */
API void v2e_fast_memory_hook(void *uc, int kind, uint64_t address, int size, int64_t value, void *data)
{
    struct memory_hook *hook = data;
    engine *e = hook->engine;

    if (running(e) && !running(e)->io && e->synchronised)
        retry_alone(e, e->synchronised);
    if (hook->callback)
        hook->callback(uc, kind, address, size, value, (void *)hook->number);
    else
        watched(hook, kind, address, size, (uint64_t)value);
}
