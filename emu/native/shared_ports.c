/* Counter 0 of the 8254 as kernels read it for a clock, and the POST code port: says in C what emu/devices/pit8254.py and
 * debugports.py say, for the accesses that have no other effect. The data sheet of the 8254 (231164), "Counter Latch
 * Command": the count is held until it has been read, and a latch command is ignored until then. */
#include "fast.h"

#define PIT_COUNTER_0 0x40
#define PIT_CONTROL 0x43
#define POST_CODE 0x80
#define COUNTER_AND_RW 0xf0 /* of a control word: both 0 in the latch command of counter 0 */
#define FREQUENCY 1193182u  /* of CLK, Hz */
#define SECOND 1000000000u  /* ns */

/* CE now. In mode 2 it goes from `loaded` to 1 and again, a count a pulse. */
static uint32_t count_now(const engine *e, const struct shared_ports *p)
{
    /* the running instruction has been counted */
    uint64_t before = e->cells->end - (uint64_t)e->control->remaining - 1;
    unsigned __int128 now = (unsigned __int128)before * e->cells->tick + p->skipped;
    uint64_t since = (uint64_t)(now * FREQUENCY / SECOND) - p->pulse;

    if (since < p->ce)
        return p->ce - (uint32_t)since;
    return p->loaded - (uint32_t)((since - p->ce) % p->loaded);
}

/* True when a byte read from `port` has been answered. */
int shared_in(engine *e, uint32_t port, uint32_t *value)
{
    struct shared_ports *p = e->ports;

    if (port != PIT_COUNTER_0 || !p || !p->ready || !p->left || e->control->ports)
        return 0;
    *value = p->left == 2 ? p->latch & 0xff : p->latch >> 8;
    p->left--;
    return 1;
}

/* True when a byte written to `port` has been taken. */
int shared_out(engine *e, uint32_t port, uint32_t value)
{
    struct shared_ports *p = e->ports;

    if (!p || e->control->ports)
        return 0;
    if (port == POST_CODE) {
        p->post = (uint8_t)value;
        return 1;
    }
    if (port != PIT_CONTROL || value & COUNTER_AND_RW || !p->ready)
        return 0;
    if (!p->left) {
        p->latch = (uint16_t)count_now(e, p);
        p->left = 2;
    }
    return 1;
}

/* Answer from `ports`; NULL: no longer. */
API void v2e_fast_ports(engine *e, struct shared_ports *ports)
{
    e->ports = ports;
}

/* The size of the structure, which both sides must have alike. */
API uint64_t v2e_fast_ports_layout(void)
{
    return sizeof(struct shared_ports);
}
