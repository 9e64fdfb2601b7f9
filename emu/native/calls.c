/* INT n of real mode and of IA-32e mode, as programs wait by it: on its way to its handler it is noted here, and Python told
 * of many at once (emu/unicorn_calls.py). What is not plain is Python's, as emu/unicorn_faults.py does it. */
#include "segments.h"

#define INTERRUPT_NUMBERS 256
#define DB 1
#define BP 3
#define OF 4
/* In the flags of a descriptor cache: S, code, expand-down and writable; of data that grows upwards and can be written. */
#define STACK_KIND 0x1e00u
#define STACK_PLAIN 0x1200u
#define FRAME 6 /* bytes of FLAGS, CS and IP */

struct call {
    uint64_t counted; /* instructions, the INT included */
    uint64_t linear, ip;
    uint32_t cs, vector;
};

/* Shared with Python: emu/unicorn_calls.py, Shared. */
#define KEPT 256
struct calls {
    engine *engine;
    void (*python)(void *uc, uint32_t vector, void *data);
    int64_t room;   /* calls that may still be noted */
    uint64_t noted; /* so many have been; the last KEPT of them are at their numbers modulo KEPT */
    struct call call[KEPT];
};

/* The stack takes a real mode frame, and nothing of it goes around the segment's end in the midst of a word. */
static int frame_fits(void *env)
{
    const struct segment *ss = segment_of(env, SS);
    uint32_t sp = AT(uint32_t, env, at.env_rsp) & 0xffff;

    return ss->limit >= 0xffff && (ss->flags & STACK_KIND) == STACK_PLAIN && (!(sp & 1) || sp > FRAME);
}

/* Nothing is to be looked at before it is delivered (emu/unicorn_transfers.py, event). */
static int is_plain(void *env, uint32_t vector)
{
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);

    if (hflags & HF_LMA)
        return !v2e_fast_gate_unsure(env, vector);
    return !(hflags & HF_PE) && frame_fits(env);
}

/* The INTR hook of an engine, before that which delivers. */
API void v2e_fast_call(void *uc, uint32_t vector, struct calls *c)
{
    engine *e = c->engine;
    struct control *control = e->control;
    void *env = e->env;
    uint32_t software = AT(uint32_t, env, at.env_error_code + 4);
    struct call *noted;

    if (c->room <= 0 || !software || vector >= INTERRUPT_NUMBERS || vector == DB || vector == BP || vector == OF ||
        control->stop || control->halt_run || control->taken ||
        AT(uint32_t, e->cpu, at.cpu_interrupt_request) & INTERRUPT_VIRQ || !is_plain(env, vector)) {
        c->python(uc, vector, NULL);
        return;
    }
    /* Unicorn has moved EIP behind it. A fault in the delivery is to save its beginning. */
    noted = &c->call[c->noted++ % KEPT];
    if (AT(uint32_t, env, at.env_hflags) & HF_CS64) {
        *e->eip = noted->linear = control->last;
    } else {
        noted->linear = (uint32_t)control->last;
        *e->eip = (uint32_t)(control->last - segment_of(env, CS)->base);
    }
    end_resume(env);
    noted->counted = e->cells->end - (uint64_t)control->remaining;
    noted->cs = segment_of(env, CS)->selector;
    noted->ip = *e->eip;
    noted->vector = vector;
    c->room--;
    control->suppress = 0;
}
