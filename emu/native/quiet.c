/* Single steps that nothing comes before and nothing but the step's end ends, runs that nothing but a watchpoint ends,
 * and looks at memory and stores to it without paging: what a debugger's client asks of a standing CPU most often, for
 * whoever answers it in C. Everything else is refused, and made by Python, which finds the CPU as a step or run of its
 * own would have left it. */
#include "fast.h"
#include "quiet.h"
#include "segments.h"

#include <string.h>

/* The numbers of runs.c. */
enum { NOT_BEGUN, SPENT, AT_BREAKPOINT, NOT_PLAIN };
#define CODE_SHIFT 8
#define DOUBLE_FAULT 8 /* old_exception after a triple fault */
#define HF_VM 0x20000u
#define SPACE (1ull << 32) /* linear addresses outside 64-bit mode */

static int is_paging(const engine *e)
{
    return !!(AT(uint64_t, e->env, at.env_cr) & CR0_PG);
}

/* Compare all that tells the CPU's modes apart (emu/x86/modes.py), big real mode among them, and whether it is halted. */
static void see_mode(struct quiet *q, uint32_t halted)
{
    const engine *e = q->engine;
    uint32_t mode[8] = {AT(uint32_t, e->env, at.env_hflags) & (HF_PE | HF_LMA | HF_CS32 | HF_CS64 | HF_SS32 | HF_VM)};

    for (int i = 0; i < 6; i++)
        mode[1 + i] = segment_of(e->env, i)->limit;
    mode[7] = halted;
    if (memcmp(mode, q->mode, sizeof mode)) {
        memcpy(q->mode, mode, sizeof mode);
        q->moded = 1;
    }
}

/* At most `left` instructions may be executed, by a CPU that is `halted` or not, in steps or in runs of at most `most`,
 * and looks be made. */
API void v2e_quiet_begin(struct quiet *q, int left, int most, int halted)
{
    q->left = left;
    q->most = most;
    q->made = q->moded = q->hit_count = 0;
    q->looks = !is_paging(q->engine);
    see_mode(q, (uint32_t)halted);
}

static int interrupt_is_due(const engine *e)
{
    return e->control->interrupt && AT(uint32_t, e->env, at.env_eflags) & EFLAGS_IF &&
           !(AT(uint32_t, e->env, at.env_hflags) & HF_INHIBIT_IRQ);
}

static uint64_t retired(const engine *e)
{
    return e->cells->end - e->control->remaining;
}

/* `step` of struct quiet. */
API int v2e_quiet_step(struct quiet *q)
{
    engine *e = q->engine;
    uint64_t from = retired(e);
    int ended;

    if (q->left <= 0 || q->most || interrupt_is_due(e))
        return QUIET_REFUSED;
    ended = v2e_fast_go(e, 1, 1);
    if (ended == NOT_BEGUN)
        return QUIET_REFUSED;
    q->from = from;
    q->budget = 1;
    if (ended != SPENT) {
        q->ended = ended;
        return QUIET_ENDED;
    }
    q->left--;
    q->made++;
    see_mode(q, 0);
    v2e_fast_brief(q->hidden, q->brief);
    q->brief[BRIEF] = retired(e);
    return QUIET_MADE;
}

/* True when a watchpoint has ended the run that `ended` so, and nothing else that Python would do something about. It
 * does nothing about a stop that is asked for (`stop`) beside a hit: that is for the next run, which is not begun with it
 * (v2e_fast_go). Nor about a data breakpoint of the guest's (`trap`): `look` raises it before it gives one of these
 * reasons, and a fault that gives one in its stead leaves it to the next run. */
static int is_met(const engine *e, int ended)
{
    const struct control *c = e->control;
    int code = ended >> CODE_SHIFT;

    return (ended & ((1 << CODE_SHIFT) - 1)) == NOT_PLAIN && (!code || code == STEP_DONE) && e->cells->met.kind &&
           c->halt_run == HALT_MET && !c->taken && (c->reason == STOP_ASKED || c->reason == STOP_BUDGET) &&
           !AT(uint32_t, e->cpu, at.cpu_halted) &&
           AT(int32_t, e->env, at.env_old_exception) != DOUBLE_FAULT;
}

/* `go` of struct quiet. An interrupt that is due is taken first, as in any run, which that ends. */
API int v2e_quiet_go(struct quiet *q)
{
    engine *e = q->engine;
    const struct met *met = &e->cells->met;
    int64_t budget = q->left < q->most ? q->left : q->most;
    uint64_t from = retired(e);
    int ended;

    if (budget <= 0 || q->hit_count >= q->hit_room)
        return QUIET_REFUSED;
    ended = v2e_fast_go(e, budget, 1);
    if (ended == NOT_BEGUN)
        return QUIET_REFUSED;
    q->from = from;
    q->budget = budget;
    q->ended = ended;
    if (!is_met(e, ended))
        return QUIET_ENDED;
    v2e_fast_brief(q->hidden, q->brief);
    q->brief[BRIEF] = retired(e);
    q->hit = (struct quiet_hit){met->linear, met->value, retired(e), q->brief[0], *e->eip, met->number, met->size,
                                met->kind == MET_WRITE, segment_of(e->env, CS)->selector};
    return QUIET_MET;
}

/* `take` of struct quiet: what Python does behind such a run (Running._run_on). */
API void v2e_quiet_take(struct quiet *q)
{
    engine *e = q->engine;

    q->hits[q->hit_count++] = q->hit;
    q->left -= (int64_t)(q->hit.retired - q->from);
    e->cells->met.kind = 0;
    e->control->halt_run = e->control->step = 0;
    AT(uint32_t, e->cpu, at.cpu_cflags_next_tb) = NO_CFLAGS;
    see_mode(q, 0);
}

static uint8_t *find(const struct quiet *q, uint64_t linear, uint64_t length)
{
    const engine *e = q->engine;

    if (is_paging(e) || !has_a20(e) || linear >= SPACE || length > SPACE - linear)
        return NULL;
    for (uint32_t i = 0; i < q->region_count; i++) {
        const struct quiet_region *r = &q->regions[i];

        if (linear >= r->base && linear - r->base < r->size && length <= r->size - (linear - r->base))
            return (uint8_t *)(r->host + (linear - r->base));
    }
    return NULL;
}

/* `look` of struct quiet. */
API const uint8_t *v2e_quiet_look(const struct quiet *q, uint64_t linear, uint64_t length)
{
    return find(q, linear, length);
}

/* `put` of struct quiet: ROM is written too, as a debugger may, and what was translated from the bytes is dropped. */
API int v2e_quiet_put(struct quiet *q, uint64_t linear, const uint8_t *bytes, uint64_t length)
{
    engine *e = q->engine;
    uint8_t *to = find(q, linear, length);
    uint64_t first = ((uint64_t)to - e->marked) / PAGE, last = ((uint64_t)to + length - 1 - e->marked) / PAGE;

    if (!to || !length || !e->place_count || (uint64_t)to < e->marked || last >= e->marked_pages)
        return 0;
    memcpy(to, bytes, length);
    memset(e->marks + first, 1, last + 1 - first);
    v2e_fast_physical_changed(e, linear, linear + length);
    return 1;
}

API uint64_t v2e_quiet_layout(void)
{
    return sizeof(struct quiet);
}
