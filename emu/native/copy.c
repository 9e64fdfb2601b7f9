/* A move from one engine to another in one call: the CPU's whole state, as emu/unicorn_copy.py copies it, and says, field by
 * field; where the run stands; and that memory was written meanwhile. The tests compare with a state that is read and
 * loaded. */
#include "fast.h"

#include <string.h>

#define DRS 8
#define DR7_FIXED 0x400u
#define HF2_NMI 4u
#define HF2_VINTR 8u
#define INTERRUPT_NMI 0x200u
#define NO_EXCEPTION (-1)

/* Two engines, as emu/unicorn_copy.py has them, which knows what is where. */
struct copying {
    engine *to, *from;
    uint8_t *traces;                 /* pages that `from` has written; NULL: none are told */
    const uint64_t (*pieces)[2];     /* what somebody else may have written of this process's memory, first and end */
    uint32_t bulk;                   /* bytes of env that are copied as they are, from its beginning */
    uint32_t mtrr, mtrr_size;        /* more of them */
    uint32_t hflags2, v_tpr, exception_is_int;
    uint32_t derived;                /* bits of hflags that belong to the state */
    uint32_t piece_count;
};

/* What there is to a state that Python has to look at. */
enum { COPIED_NMI = 1, COPIED_BREAKPOINTS = 2, COPIED_SKIP = 4 };

API uint64_t v2e_copy_layout(void)
{
    return sizeof(struct copying);
}

static void copy_state(const struct copying *c)
{
    engine *e = c->to;
    const uint8_t *from = c->from->env;
    uint8_t *env = e->env;
    uint32_t *hflags = &AT(uint32_t, env, at.env_hflags), *hflags2 = &AT(uint32_t, env, c->hflags2);
    uint32_t own = *hflags & ~c->derived, own2 = *hflags2 & ~HF2_NMI;
    uint64_t *dr = &AT(uint64_t, env, at.env_dr);
    const uint64_t *drs = &AT(const uint64_t, from, at.env_dr);

    memcpy(env, from, c->bulk);
    *hflags = own | (*hflags & c->derived);
    *hflags2 = own2 | HF2_VINTR | (*hflags2 & HF2_NMI);
    memcpy(env + c->mtrr, from + c->mtrr, c->mtrr_size);
    AT(uint8_t, env, c->v_tpr) = AT(const uint8_t, from, c->v_tpr);
    if (memcmp(dr, drs, DRS * sizeof *dr)) {
        real_cpu_x86_update_dr7(env, DR7_FIXED); /* takes the old breakpoints out before their addresses go */
        memcpy(dr, drs, 4 * sizeof *dr);
        dr[6] = drs[6];
        real_cpu_x86_update_dr7(env, (uint32_t)drs[7]);
    }
    AT(int32_t, env, at.env_old_exception) = NO_EXCEPTION;
    AT(int32_t, env, at.env_error_code) = AT(int32_t, env, c->exception_is_int) = 0;
    AT(uint32_t, e->cpu, at.cpu_interrupt_request) = AT(uint32_t, c->from->cpu, at.cpu_interrupt_request) & INTERRUPT_NMI;
    real_tlb_flush(e->cpu);
}

/* `to` goes on where `from` stands, with INTR low in both. Returns what Python has to look at. */
API uint32_t v2e_fast_copy(const struct copying *c)
{
    engine *e = c->to;
    struct control *to = e->control, *from = c->from->control;
    uint64_t *dr = &AT(uint64_t, e->env, at.env_dr);

    if (c->traces)
        take_traces(e, c->traces);
    for (uint32_t i = 0; i < c->piece_count; i++)
        v2e_fast_host_changed(e, c->pieces[i][0], c->pieces[i][1]);
    copy_state(c);
    from->interrupt = from->masked = 0;
    e->cells->end = c->from->cells->end - (uint64_t)from->remaining;
    to->remaining = 0;
    to->last = from->last;
    to->skip = EMPTY;
    to->trap = from->trap; /* one that MOV SS holds back; DR6 has what was met */
    to->leave = LEAVE_BLOCK;
    to->dr7 = (uint32_t)dr[7];
    return (AT(uint32_t, e->cpu, at.cpu_interrupt_request) ? COPIED_NMI : 0) | (dr[7] & 0xff ? COPIED_BREAKPOINTS : 0) |
           (from->skip != EMPTY ? COPIED_SKIP : 0);
}
