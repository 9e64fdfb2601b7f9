/* Single steps that nothing comes before and nothing but the step's end ends, and looks at memory without paging: what a
 * debugger's client asks of a standing CPU most often, for whoever answers it in C. Everything else is refused, and made
 * by Python, which finds the CPU as a step of its own would have left it. */
#include "fast.h"
#include "quiet.h"
#include "segments.h"

#include <string.h>

/* The numbers of runs.c. */
enum { NOT_BEGUN, SPENT };
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

/* At most `left` steps may be made of a CPU that is `halted` or not, and looks. */
API void v2e_quiet_begin(struct quiet *q, int left, int halted)
{
    q->left = left;
    q->made = q->moded = 0;
    q->looks = !is_paging(q->engine);
    see_mode(q, (uint32_t)halted);
}

static int interrupt_is_due(const engine *e)
{
    return e->control->interrupt && AT(uint32_t, e->env, at.env_eflags) & EFLAGS_IF &&
           !(AT(uint32_t, e->env, at.env_hflags) & HF_INHIBIT_IRQ);
}

/* `step` of struct quiet. */
API int v2e_quiet_step(struct quiet *q)
{
    engine *e = q->engine;
    int ended;

    if (q->left <= 0 || interrupt_is_due(e))
        return QUIET_REFUSED;
    ended = v2e_fast_go(e, 1, 1);
    if (ended == NOT_BEGUN)
        return QUIET_REFUSED;
    if (ended != SPENT) {
        q->ended = ended;
        return QUIET_ENDED;
    }
    q->left--;
    q->made++;
    see_mode(q, 0);
    v2e_fast_brief(q->hidden, q->brief);
    return QUIET_MADE;
}

/* `look` of struct quiet. */
API const uint8_t *v2e_quiet_look(const struct quiet *q, uint64_t linear, uint64_t length)
{
    const engine *e = q->engine;

    if (is_paging(e) || !has_a20(e) || linear >= SPACE || length > SPACE - linear)
        return NULL;
    for (uint32_t i = 0; i < q->region_count; i++) {
        const struct quiet_region *r = &q->regions[i];

        if (linear >= r->base && linear - r->base < r->size && length <= r->size - (linear - r->base))
            return (const uint8_t *)(r->host + (linear - r->base));
    }
    return NULL;
}

API uint64_t v2e_quiet_layout(void)
{
    return sizeof(struct quiet);
}
