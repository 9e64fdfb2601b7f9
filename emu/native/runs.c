/* A run as Python asks for it, with what comes before and behind it done here: an access from Python to one field of
 * the shared structures takes longer than an instruction. Only what is not plain is left to Python (Running.run
 * of emu/unicorn_running.py), which does all of it for the other run loop. */
#include "fast.h"
#include "segments.h"

/* How `v2e_fast_go` ended: the numbers of emu/unicorn_fast.py. */
enum { NOT_BEGUN, SPENT, AT_BREAKPOINT, NOT_PLAIN };
#define CODE_SHIFT 8
#define DOUBLE_FAULT 8 /* old_exception after a triple fault */

/* Run until there is a reason to stop; what uc_emu_start returns. */
API int v2e_fast_run(engine *e)
{
    int error;

    e->control->running = 0;
    e->stopped = NULL;
    e->unwinding = e->synchronised = 0;
    e->cells->generation++; /* timers may have fired */
    e->cells->time_known = 0; /* idle time may have been skipped */
    cut_run(e);
    error = real_uc_emu_start(e->uc, *e->eip, 0, 0, 0);
    if (!(AT(uint32_t, e->env, at.env_hflags) & HF_CS64))
        *e->eip = (uint32_t)*e->eip; /* Unicorn has 64 bits of it behind a Jcc that goes beyond 4 GiB */
    engine_left(e);
    end_false_shadow(e);
    join_run(e);
    if (e->control->masked) { /* for Python one is like the other, and it may give the CPU another IF */
        e->control->masked = 0;
        e->control->interrupt = 1;
    }
    return error;
}

static uint64_t linear_pc(const engine *e)
{
    uint64_t base = AT(uint64_t, e->env, at.env_segs + 24 + 8); /* of CS */

    return AT(uint32_t, e->env, at.env_hflags) & HF_CS64 ? *e->eip : (uint32_t)(base + *e->eip);
}

/* The run has not ended behind a near branch of 64-bit code that went to no canonical address, and that will fault. */
static int is_somewhere(const engine *e)
{
    return !(AT(uint32_t, e->env, at.env_hflags) & HF_CS64) || canonical(*e->eip);
}

/* Run at most `budget` instructions; with `skip` the first is not checked against the
 * breakpoints. Two ends are told as they are: the budget is SPENT, or the run is AT_BREAKPOINT, and nothing else
 * happened. NOT_BEGUN: nothing was done, as a stop is asked for, or nobody has yet heard of an interrupt. Any other end
 * is for Python to look at: NOT_PLAIN, and what Unicorn returned from CODE_SHIFT on. So is that behind a watched access:
 * it sets halt_run. */
API int v2e_fast_go(engine *e, int64_t budget, int skip)
{
    struct control *c = e->control;
    int code, quiet;

    if (c->stop || c->taken || c->changes)
        return NOT_BEGUN;
    e->cells->end += (uint64_t)(budget - c->remaining);
    c->remaining = budget;
    c->skip = EMPTY;
    if (skip) {
        c->skip = linear_pc(e);
        c->skip_rsp = AT(uint64_t, e->env, at.env_rsp);
    }
    if (budget == 1) { /* a translation of one instruction: what follows is not made again for each step into it */
        c->step = 1;
        AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) = 1;
    }
    c->reason = 0;
    code = v2e_fast_run(e);
    c->suppress = 0;
    quiet = !c->stop && !c->halt_run && c->taken != TAKEN && !c->trap && (!code || code == STEP_DONE) &&
            AT(int32_t, e->env, at.env_old_exception) != DOUBLE_FAULT && likely(is_somewhere(e));
    if (quiet && c->reason == STOP_BREAKPOINT) {
        code = AT_BREAKPOINT;
    } else if (quiet && !c->remaining && /* else its instruction is under a breakpoint of DR0 to DR3 */
               (c->reason == STOP_BUDGET || (!c->reason && code == STEP_DONE && !AT(uint32_t, e->cpu, at.cpu_halted)))) {
        code = SPENT;
    } else {
        return NOT_PLAIN | code << CODE_SHIFT;
    }
    c->step = 0;
    AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) = NO_CFLAGS;
    return code;
}

/* The same of a budget that is an `int`, as Python passes its numbers in the least time. */
API int v2e_fast_go_few(engine *e, int budget, int skip)
{
    return v2e_fast_go(e, budget, skip);
}
