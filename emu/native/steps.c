/* Single steps (EFLAGS.TF), and PAUSE, which Unicorn leaves out of them. */
#include "checks.h"
#include "segments.h"

#define DR6_BS 0x4000u
#define DR6_B 0xfu

/* The bits of DR6 for the breakpoints of DR0 to DR3 on the execution of what is at CS:EIP, which are compared with its
 * linear address (SDM vol. 3B, 17.2.1). Those of breakpoints that are not enabled may be set or not (17.2.3): here, as in
 * Bochs, where another is. */
static uint32_t execution_breakpoints(void *env)
{
    const uint64_t *dr = &AT(uint64_t, env, at.env_dr);
    uint64_t linear = AT(uint64_t, env, at.env_eip);
    uint32_t found = 0;

    if (!(dr[7] & DR7_ENABLES))
        return 0;
    if (!(AT(uint32_t, env, at.env_hflags) & HF_CS64))
        linear = (uint32_t)(segment_of(env, CS)->base + linear);
    for (int i = 0; i < BREAKPOINTS; i++)
        if (!(dr[7] >> (16 + 4 * i) & 3) && dr[i] == linear)
            found |= 1u << i;
    return found;
}

/* A block has ended before an instruction with an execution breakpoint. Unicorn compares it with EIP here, though with the
 * linear address where it translates, and would go back to the same block for ever where CS has a base. */
REPLACES void breakpoint_handler_x86_64(void *cpu)
{
    void *env = (uint8_t *)cpu + at.cpu_env;
    uint64_t *dr6 = &AT(uint64_t, env, at.env_dr) + 6;
    uint32_t found;

    if (AT(uint32_t, env, at.env_hflags) & HF_CS64 || !segment_of(env, CS)->base || !(found = execution_breakpoints(env))) {
        real_breakpoint_handler(cpu);
        return;
    }
    *dr6 = (*dr6 & ~(uint64_t)DR6_B) | found;
    real_raise_exception_err(env, EXCP_DB, 0);
}

/* True when the instruction that has just ended is a near branch to an address that is not canonical, by which it faults
 * itself (vol. 2A, CALL, JMP; vol. 2B, RET): no #DB comes behind it. */
static int branched_beyond(const engine *e)
{
    static __thread struct instruction in;
    uint8_t bytes[LONGEST];
    const slot *s;
    int length;

    if (likely(!(AT(uint32_t, e->env, at.env_hflags) & HF_CS64) || canonical(*e->eip)) || !(s = running(e)))
        return 0;
    length = bytes_at(e->env, s->last, (uint64_t)s->block->code, bytes);
    hide_ignored_66(e, bytes, length);
    if (!decode(bytes, length, 64, 32, &in))
        return 0;
    if (in.branch == BRANCH_CONDITION || in.branch == BRANCH_LOOP)
        return *e->eip != s->last + in.length;
    return in.branch != BRANCH_NONE;
}

/* #DB behind the instruction that has just ended, as TF was set when it began; EIP is the next one's. DR6 has what else
 * was met at this boundary. */
__attribute__((noreturn)) void step_trap(void *env)
{
    const engine *e = engine_of_env(env);
    uint64_t *dr6 = &AT(uint64_t, env, at.env_dr) + 6;

    if (e && unlikely(branched_beyond(e))) /* emu/unicorn_faults.py takes the branch back */
        real_raise_exception_err(env, EXCP_GP, 0);
    if (!e || !e->control->trap)
        *dr6 &= ~(uint64_t)DR6_B;
    *dr6 |= DR6_BS | execution_breakpoints(env);
    real_raise_exception_err(env, EXCP_DB, 0);
    __builtin_unreachable();
}

/* Called behind each instruction that is translated with TF set. Unicorn's own compares breakpoints with EIP. */
REPLACES void helper_single_step_x86_64(void *env)
{
    step_trap(env);
}

/* RF is not to outlive the instruction, which may load it. Of one that faults it is pushed as 1. */
void end_resume(void *env)
{
    AT(uint64_t, env, at.env_eflags) &= ~(uint64_t)EFLAGS_RF;
}

/* An instruction that its block ends with, and that Unicorn ends the block behind in a way of its own: what the end of any
 * other does. */
void end_of_instruction(void *env)
{
    end_resume(env);
    AT(uint32_t, env, at.env_hflags) &= ~HF_INHIBIT_IRQ;
}

/* PAUSE: Unicorn's leaves the CPU loop, and Unicorn's own loop around it is slow to enter it again. Nothing here waits
 * for another thread, so the block just ends: see tcg_gen_callN of translate.c, which has the next one looked up. */
REPLACES void helper_pause_x86_64(void *env, int length)
{
    int stepped = (AT(uint64_t, env, at.env_eflags) & EFLAGS_TF) != 0;

    end_of_instruction(env);
    if (stepped || engine_of_env(env))
        AT(uint64_t, env, at.env_eip) += (uint64_t)length;
    else
        real_helper_pause(env, length);
    if (stepped)
        step_trap(env);
}
