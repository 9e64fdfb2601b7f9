/* Instructions of which Unicorn leaves one rule out, kept before its own function or behind it: moves to and from debug
 * registers, LTR, PUSHF. Every engine has them, whichever run loop it uses. */
#include "fast.h"

/* General detect: #DB before the move (SDM vol. 3B, 17.2.4). The handler runs with GD clear. */
static void detect(void *env, uint64_t host)
{
    uint64_t *dr = &AT(uint64_t, env, at.env_dr);

    if (!(dr[7] & DR7_GD))
        return;
    dr[7] &= ~(uint64_t)DR7_GD;
    dr[6] |= DR6_BD;
    real_raise_exception_err_ra(env, EXCP_DB, 0, host);
}

REPLACES void helper_set_dr_x86_64(void *env, int number, uint64_t value)
{
    look_behind(env);
    detect(env, (uint64_t)__builtin_return_address(0));
    real_helper_set_dr(env, number, value);
}

REPLACES uint64_t helper_get_dr_x86_64(void *env, int number)
{
    detect(env, (uint64_t)__builtin_return_address(0));
    return real_helper_get_dr(env, number);
}

/* LTR of a null selector: #GP(0) (SDM vol. 2A, LTR); Unicorn loads it. */
REPLACES void helper_ltr_x86_64(void *env, int selector)
{
    if (!(selector & 0xfffc))
        real_raise_exception_err_ra(env, EXCP_GP, 0, (uint64_t)__builtin_return_address(0));
    real_helper_ltr(env, selector);
}

/* PUSHF pushes VM and RF as 0 (SDM vol. 2B, PUSHF). */
REPLACES uint64_t helper_read_eflags_x86_64(void *env)
{
    return real_helper_read_eflags(env) & ~(uint64_t)(EFLAGS_VM | EFLAGS_RF);
}
