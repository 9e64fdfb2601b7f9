/* The CPU's whole state from one engine to another: what emu/unicorn_copy.py does, and says, field by field, in one call.
 * The tests compare both with a state that is read and loaded. */
#include "fast.h"

#include <string.h>

#define DRS 8
#define DR7_FIXED 0x400u
#define HF2_NMI 4u
#define HF2_VINTR 8u
#define INTERRUPT_NMI 0x200u
#define NO_EXCEPTION (-1)

/* Two engines, in the order of emu/unicorn_copy.py, which knows what is where. */
struct copying {
    engine *to, *from;
    uint32_t bulk;                   /* bytes of env that are copied as they are, from its beginning */
    uint32_t mtrr, mtrr_size;        /* more of them */
    uint32_t hflags2, v_tpr, exception_is_int;
    uint32_t derived;                /* bits of hflags that belong to the state */
    uint32_t pad;
};

API uint64_t v2e_copy_layout(void)
{
    return sizeof(struct copying);
}

/* `to` goes on where `from` stands. */
API void v2e_fast_copy(const struct copying *c)
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
