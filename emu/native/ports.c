/* Port I/O. */
#include "segments.h"

#include <string.h>

#define ALONE(e) be_alone(e, (uint64_t)__builtin_return_address(0));

/* True when a cell answers a read of `size` bytes from `port`, which is counted; all of `value` is then set. */
static int answered(engine *e, uint32_t port, uint32_t size, uint32_t *value)
{
    struct cell *cell = &e->cells->cell[port % CELLS];

    if (cell->generation != e->cells->generation || cell->port != port || e->control->remaining <= cell->floor ||
        e->control->ports)
        return 0;
    if (cell->streams) {
        if (!(cell->streams & size) || cell->left < size)
            return 0;
        *value = 0;
        memcpy(value, cell->data, size);
        cell->data += size;
        cell->left -= size;
    } else {
        if (size != 1)
            return 0;
        *value = cell->value;
    }
    if (cell->kept)
        e->cells->kept++;
    else
        note_answer(e);
    return 1;
}

/* True when a write of `size` bytes to `port` has been put into the buffer that collects them. */
static int collected(engine *e, uint32_t port, uint32_t size, uint32_t value)
{
    struct sink *sink = &e->cells->sink;

    if (sink->generation != e->cells->generation || sink->port != port || !(sink->sizes & size) || sink->room < size)
        return 0;
    memcpy(sink->data, &value, size);
    sink->data += size;
    sink->room -= size;
    return 1;
}

/* The permission of the ports: Unicorn's own check asks the TSS's bitmap, and raises #GP(0). */
static void ask_permission(engine *e, uint32_t port, void (*ask)(void *, uint32_t))
{
    if (asks_for_ports(e->env))
        ask(e->env, port);
}

#define IN(name, size, type, ask)                                                                                           \
    REPLACES uint64_t helper_##name##_x86_64(void *env, uint32_t port)                                                 \
    {                                                                                                                  \
        engine *e = engine_of_env(env);                                                                                \
        uint32_t value;                                                                                                \
                                                                                                                       \
        if (!e)                                                                                                        \
            return real_helper_##name(env, port);                                                                      \
        ALONE(e)                                                                                                       \
        ask_permission(e, port & 0xffff, real_helper_check_io##ask);                                                   \
        if (answered(e, port & 0xffff, size, &value))                                                                  \
            return value;                                                                                              \
        if (size == 1 && shared_in(e, port & 0xffff, &value)) {                                                        \
            note_shared(e, port & 0xffff);                                                                             \
            return value;                                                                                              \
        }                                                                                                              \
        e->cells->generation++;                                                                                        \
        return (type)e->in(port & 0xffff, size);                                                                       \
    }
#define OUT(name, size, type, ask)                                                                                          \
    REPLACES void helper_##name##_x86_64(void *env, uint32_t port, uint32_t value)                                     \
    {                                                                                                                  \
        engine *e = engine_of_env(env);                                                                                \
                                                                                                                       \
        if (!e) {                                                                                                      \
            real_helper_##name(env, port, value);                                                                      \
            return;                                                                                                    \
        }                                                                                                              \
        ALONE(e)                                                                                                       \
        ask_permission(e, port & 0xffff, real_helper_check_io##ask);                                                   \
        if (collected(e, port & 0xffff, size, value)) {                                                                \
            note_answer(e);                                                                                            \
            return;                                                                                                    \
        }                                                                                                              \
        if (size == 1 && shared_out(e, port & 0xffff, value & 0xff)) {                                                 \
            note_shared(e, port & 0xffff);                                                                             \
            return;                                                                                                    \
        }                                                                                                              \
        e->cells->generation++;                                                                                        \
        e->out(port & 0xffff, size, (type)value);                                                                      \
    }
IN(inb, 1, uint8_t, b)
IN(inw, 2, uint16_t, w)
IN(inl, 4, uint32_t, l)
OUT(outb, 1, uint8_t, b)
OUT(outw, 2, uint16_t, w)
OUT(outl, 4, uint32_t, l)

/* Breakpoints on ports: Python compares them (emu/unicorn_watch.py), as the trap of a repeated instruction is behind the
 * iteration, CR4.DE is asked and an address loses the low bits that its length covers (SDM vol. 3B, 18.2.5). */
REPLACES void helper_bpt_io_x86_64(void *env, uint32_t port, uint32_t size, uint64_t next)
{
    if (!engine_of_env(env))
        real_helper_bpt_io(env, port, size, next);
}
