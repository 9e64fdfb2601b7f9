/* Counter 0 of the 8254 as kernels read it for a clock, the POST code port, the master 8259's masks and ends of
 * interrupts, and the HPET's main counter: says in C what emu/devices/pit8254.py, debugports.py, pic8259_chip.py and
 * hpet.py say, for the accesses that have no other effect. The data sheet of the 8254 (231164), "Counter Latch
 * Command": the count is held until it has been read, and a latch command is ignored until then. */
#include "fast.h"

#define PIT_COUNTER_0 0x40
#define PIT_CONTROL 0x43
#define POST_CODE 0x80
#define PIC_COMMAND 0x20
#define PIC_MASK 0x21
#define EOI 0x20 /* OCW2: R, SL and EOI are 001; with SL the level is in bits 2 to 0 (8259A data sheet, figure 8) */
#define SPECIFIC_EOI 0x60
#define OCW2_COMMAND 0xf8
#define COUNTER_AND_RW 0xf0 /* of a control word: both 0 in the latch command of counter 0 */
#define FREQUENCY 1193182u  /* of CLK, Hz */
#define SECOND 1000000000u  /* ns */
#define HPET_COUNTER 0xfed000f0u

/* Virtual time in ns. The running instruction has been counted. */
static unsigned __int128 time_now(const engine *e, const struct shared_ports *p)
{
    uint64_t before = e->cells->end - (uint64_t)e->control->remaining - 1;

    return (unsigned __int128)before * e->cells->tick + p->skipped;
}

/* CE now. In mode 2 it goes from `loaded` to 1 and again, a count a pulse. */
static uint32_t count_now(const engine *e, const struct shared_ports *p)
{
    uint64_t since = (uint64_t)(time_now(e, p) * FREQUENCY / SECOND) - p->pulse;

    if (since < p->ce)
        return p->ce - (uint32_t)since;
    return p->loaded - (uint32_t)((since - p->ce) % p->loaded);
}

/* ---- The master 8259, fully nested: IR0 comes first, and what is in service holds back itself and all behind it. */

static uint32_t first_of(uint32_t inputs)
{
    return inputs & -inputs;
}

/* The input, as a mask, that an acknowledge would serve; 0: INT is low. */
static uint32_t requested(uint32_t requests, uint32_t imr, uint32_t isr)
{
    uint32_t first = first_of(requests & ~imr), serving = first_of(isr);

    return first && (!serving || first < serving) ? first : 0;
}

/* The engine takes the interrupt: acknowledge it, if that concerns the master alone. Otherwise Python does later. */
void acknowledge_shared(engine *e)
{
    struct shared_ports *p = e->ports;
    uint32_t n;

    if (!p || !p->pic_ready || !(n = requested(p->requests, p->imr, p->isr)) || n & p->slaves)
        return;
    p->isr |= (uint8_t)n;
    p->requests &= (uint8_t)~(n & ~(uint32_t)p->levels);
    p->served = (uint8_t)n;
}

/* A byte written to the master: taken where INTR is low before and behind it. */
static int pic_written(const engine *e, struct shared_ports *p, uint32_t port, uint32_t value)
{
    const struct control *c = e->control;
    uint32_t imr = p->imr, isr = p->isr;

    if (!p->pic_ready || c->interrupt || c->masked || (c->taken && !p->served))
        return 0;
    if (port == PIC_MASK)
        imr = value;
    else if (value == EOI)
        isr &= ~first_of(isr);
    else if ((value & OCW2_COMMAND) == SPECIFIC_EOI)
        isr &= ~(1u << (value & 7));
    else
        return 0;
    if (requested(p->requests, imr, isr))
        return 0;
    p->imr = (uint8_t)imr;
    p->isr = (uint8_t)isr;
    return 1;
}

/* An access to `port` needed no Python. */
void note_shared(engine *e, uint32_t port)
{
    if (e->ports->kept && port != POST_CODE)
        e->cells->kept++;
    else
        note_answer(e);
}

/* True when a byte read from `port` has been answered. */
int shared_in(engine *e, uint32_t port, uint32_t *value)
{
    struct shared_ports *p = e->ports;

    if (!p || e->control->ports)
        return 0;
    if (port == PIC_MASK && p->pic_ready) {
        *value = p->imr;
        return 1;
    }
    if (port != PIT_COUNTER_0 || !p->ready || !p->left)
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
    if (port == PIC_COMMAND || port == PIC_MASK)
        return pic_written(e, p, port, value);
    if (port != PIT_CONTROL || value & COUNTER_AND_RW || !p->ready)
        return 0;
    if (!p->left) {
        p->latch = (uint16_t)count_now(e, p);
        p->left = 2;
    }
    return 1;
}

/* True when a read of physical `address` has been answered: of the main counter, or a part of it (IA-PC HPET
 * specification 1.0a, 2.3.7). */
int shared_memory(engine *e, uint64_t address, unsigned size, uint64_t *value)
{
    const struct shared_ports *p = e->ports;
    uint64_t at = address - HPET_COUNTER;

    if (!p || at >= sizeof *value || !p->hpet_tick)
        return 0;
    *value = ((uint64_t)time_now(e, p) - (uint64_t)p->hpet_origin) / p->hpet_tick >> 8 * at;
    if (size < sizeof *value)
        *value &= ((uint64_t)1 << 8 * size) - 1;
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
