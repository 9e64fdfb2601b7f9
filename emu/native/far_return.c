/* RETF of real and V86 mode whose two items lie at the two ends of a stack of 64 KiB: SP wraps between them, as between two
 * POPs (SDM vol. 2B, RET; vol. 1, 6.2). Unicorn's translator reads the second one behind the end of the stack. It is
 * executed here, alone in its block. */
#include "record.h"

/* `in` may be one, by where it is translated for. */
int may_wrap(const struct instruction *in, uint32_t flags)
{
    return (in->opcode == 0xca || in->opcode == 0xcb) && (!(flags & HF_PE) || flags & HF_VM) && !(flags & HF_SS32);
}

static uint32_t pop(void *env, uint32_t sp, uint32_t size, uint64_t host)
{
    uint64_t linear = (uint32_t)(segment_of(env, SS)->base + (sp & 0xffff));

    return size == 2 ? (uint32_t)real_cpu_lduw_data_ra(env, linear, host) : real_cpu_ldl_data_ra(env, linear, host);
}

/* Do it, and leave the block behind it, where the second item is at the other end. `dropped`: bytes of parameters. */
void return_around_the_end(engine *e, uint32_t size, uint32_t dropped, uint64_t host)
{
    void *env = e->env;
    uint64_t *rsp = &AT(uint64_t, env, at.env_rsp);
    uint32_t sp = *rsp & 0xffff, offset, selector;
    struct segment *cs = segment_of(env, CS);

    if (sp + size != 0x10000)
        return;
    be_alone(e, host);
    offset = pop(env, sp, size, host);
    selector = pop(env, sp + size, size, host) & 0xffff;
    real_cpu_restore_state(e->cpu, host, 1);
    cs->selector = selector;
    cs->base = (uint64_t)selector << 4;
    *rsp = (*rsp & ~0xffffull) | ((sp + 2 * size + dropped) & 0xffff);
    e->control->leave |= LOOK;
    end_block_at(e, offset);
}
