/* Counter 0 of the 8254 as kernels read it for a clock, and as IRQ 0, the POST code port, the master 8259's masks and ends
 * of interrupts, and the HPET's main counter: says in C what emu/devices/pit8254.py, debugports.py, pic8259_chip.py and
 * hpet.py say, for what has no other effect. The data sheet of the 8254 (231164), "Counter Latch
 * Command": the count is held until it has been read, and a latch command is ignored until then. */
#include "fast.h"

#include <string.h>

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
#define HPET_COMPARATOR 0xfed00108u /* of timer 0 */
#define HPET_APART 0x20
#define IR0 1u

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
    if (n & IR0) /* when OUT falls matters to nobody now */
        cut_run(e);
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

/* ---- IRQ 0 follows OUT of counter 0, in mode 2: low for the pulse at which the count is 1, high for the others.
 *
 * While `ticking` a run goes on behind the edges of OUT: it is cut at each, which is passed here at the first instruction
 * boundary at or after it, as a timer of Python's would at the end of a run. Nobody can tell when OUT falls while IR0
 * requests nothing: then the run is cut at the rise alone. What Python has to know it asks for (emu/devices/ticks.py). */

static int can_pass(const struct shared_ports *p)
{
    return p && p->ticking && p->ready && p->pic_ready && p->edges_ready;
}

/* How many instructions have retired at the first boundary at or after CLK pulse `pulse`. */
static int64_t boundary_of(const engine *e, const struct shared_ports *p, uint64_t pulse)
{
    unsigned __int128 at = ((unsigned __int128)pulse * SECOND + FREQUENCY - 1) / FREQUENCY;

    if (at <= p->skipped)
        return 0;
    at = (at - p->skipped + e->cells->tick - 1) / e->cells->tick;
    return at > (uint64_t)NEVER ? NEVER : (int64_t)at;
}

/* OUT changes, and IRQ 0 with it. False: that is for Python, and nothing was done. */
static int pass_edge(engine *e, struct shared_ports *p)
{
    struct control *c = e->control;
    int rises = !p->out;
    uint32_t requests = rises ? p->requests | IR0 : p->requests & ~IR0, n = requested(requests, p->imr, p->isr);

    if (n & p->slaves || (c->taken && (c->taken != TAKEN_ON || !p->served || p->logged >= p->room)))
        return 0;
    if (c->taken) {
        p->taken_at[p->logged % DELIVERIES] = c->taken_at;
        p->taken[p->logged++ % DELIVERIES] = c->taken_vector;
        p->acknowledged |= p->served;
        p->served = c->taken = 0;
    }
    p->requests = (uint8_t)requests;
    p->out = (uint8_t)rises;
    p->passed++;
    p->rises += (uint32_t)rises;
    p->edge += rises ? p->loaded - 1 : 1;
    c->masked = 0;
    c->interrupt = !!n;
    if (n) {
        c->vector = p->vectors + (uint32_t)__builtin_ctz(n);
        c->last_for_now = 1;
    }
    return 1;
}

/* Give the run back what was cut from it. */
void join_run(engine *e)
{
    if (!e->beyond)
        return;
    e->cells->generation++; /* timers may have fired, and answers that hold until a count know this end of the run */
    e->cells->time_left += e->beyond;
    e->cells->end += (uint64_t)e->beyond;
    e->control->remaining += e->beyond;
    e->beyond = 0;
}

/* Cut the run at the next edge of OUT that matters. */
void cut_run(engine *e)
{
    struct shared_ports *p = e->ports;
    struct control *c = e->control;
    int64_t left;
    int skips;

    join_run(e);
    if (!p || !p->ticking || c->remaining <= 0)
        return;
    if (!can_pass(p)) { /* since the run began; it was not planned to end at the edge */
        c->stop = 1;
        return;
    }
    skips = p->out && !(p->requests & IR0);
    left = boundary_of(e, p, p->edge + (uint32_t)skips) - (int64_t)(e->cells->end - (uint64_t)c->remaining);
    if (left < 0)
        left = 0;
    if (left >= c->remaining)
        return;
    e->beyond = c->remaining - left;
    e->cells->time_left -= e->beyond;
    e->cells->end -= (uint64_t)e->beyond;
    c->remaining = left;
}

/* The part of the run up to an edge is spent. False: so is the run, or it is Python's to go on. */
int next_part(engine *e)
{
    struct shared_ports *p = e->ports;
    const struct control *c = e->control;

    if (!e->beyond)
        return 0;
    join_run(e);
    if (!can_pass(p))
        return 0;
    while (boundary_of(e, p, p->edge) <= (int64_t)(e->cells->end - (uint64_t)c->remaining))
        if (!pass_edge(e, p))
            return 0;
    cut_run(e);
    return c->remaining > 0;
}

/* An access to `port` needed no Python. */
void note_shared(engine *e, uint32_t port)
{
    if (e->ports->kept && port < POST_CODE)
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
    if (dac_written(e->display, port, value))
        return 1;
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

/* True when a write to physical `address` has been taken: of the comparator, or a half of it, of a timer that is off. */
int shared_memory_written(engine *e, uint64_t address, unsigned size, uint64_t value)
{
    struct shared_ports *p = e->ports;
    uint64_t at = address - HPET_COMPARATOR, n = at / HPET_APART;

    at %= HPET_APART;
    if (!p || n >= HPET_TIMERS || !(p->idle_timers >> n & 1) || (size != 4 && size != 8) || at % size || at >= 8)
        return 0;
    memcpy((uint8_t *)&p->comparators[n] + at, &value, size);
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
