/* x87: what is pushed, popped and moved between registers (SDM vol. 1, 8.1.2 and 8.3.3; stack faults 8.5.1.1). */
#include "x87.h"

/* What FPUSH found, which the translator emits before most of what loads a register, for the function behind it; or
 * what begin_fcmov did. */
static __thread enum { NOT_PUSHED, PUSHED, PUSHED_ON_FULL, NOT_TO_MOVE } pushing;

/* Before FCMOV (checks.c): its operands may be empty whether its condition holds or not, and then nothing is moved. */
void begin_fcmov(void *env, int n, uint64_t host)
{
    pushing = NOT_PUSHED;
    if (likely(!is_empty(env, 0) && !is_empty(env, n)))
        return;
    stack_fault(env, 0, host);
    put_indefinite(st(env, 0));
    *tag(env, 0) = 0;
    pushing = NOT_TO_MOVE;
}

REPLACES void helper_fpush_x86_64(void *env)
{
    int full = !is_empty(env, -1);

    wait_for(env, HOST);
    if (unlikely(full))
        stack_fault(env, X87_C1, HOST);
    turn(env, -1);
    *tag(env, 0) = 0;
    pushing = full ? PUSHED_ON_FULL : PUSHED;
}

static void loaded(void *env, const void *value)
{
    if (pushing == PUSHED_ON_FULL)
        put_indefinite(st(env, 0));
    else
        put(st(env, 0), value);
    if (pushing == PUSHED)
        AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
    pushing = NOT_PUSHED;
}

/* The constants are rounded as RC says, to 64 bits whatever PC says (vol. 1, 8.3.8). */
#define CONSTANT(name)                                                                                                 \
    REPLACES void helper_##name##_ST0_x86_64(void *env)                                                                \
    {                                                                                                                  \
        long double value;                                                                                             \
        uint16_t status;                                                                                               \
                                                                                                                       \
        OPERATE(env, status, "", #name, "fstpt %[v]", ALSO([v] "=m"(value)), NOTHING);                                 \
        (void)status;                                                                                                  \
        loaded(env, &value);                                                                                           \
    }
CONSTANT(fld1)
CONSTANT(fldz)
CONSTANT(fldl2t)
CONSTANT(fldl2e)
CONSTANT(fldpi)
CONSTANT(fldlg2)
CONSTANT(fldln2)

/* FLD ST(n - 1) behind FPUSH, or FCMOV. Of two faults of FLD the full stack comes first. */
REPLACES void helper_fmov_ST0_STN_x86_64(void *env, int n)
{
    int empty = is_empty(env, n) || (pushing == PUSHED && !n); /* ST(7) is the register that was pushed on */
    engine *e = engine_of_env(env);

    if (pushing == PUSHED && unlikely(empty)) {
        pushing = NOT_PUSHED;
        *tag(env, 0) = 1; /* as if nothing had been pushed, as the instruction may begin again */
        turn(env, 1);
        if (e && running(e))
            be_alone(e, HOST);
        stack_fault(env, 0, HOST);
        turn(env, -1);
        *tag(env, 0) = 0;
        put_indefinite(st(env, 0));
        return;
    }
    if (pushing == NOT_TO_MOVE)
        return;
    loaded(env, st(env, n));
}

/* FST ST(n). */
REPLACES void helper_fmov_STN_ST0_x86_64(void *env, int n)
{
    wait_for(env, HOST);
    if (unlikely(is_empty(env, 0))) {
        stack_fault(env, 0, HOST);
        put_indefinite(st(env, n));
    } else {
        put(st(env, n), st(env, 0));
        AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
    }
    *tag(env, n) = 0;
}

REPLACES void helper_fxchg_ST0_STN_x86_64(void *env, int n)
{
    uint8_t kept[10];

    wait_for(env, HOST);
    if (unlikely(is_empty(env, 0) || is_empty(env, n))) {
        stack_fault(env, 0, HOST);
        if (is_empty(env, 0))
            put_indefinite(st(env, 0));
        if (is_empty(env, n))
            put_indefinite(st(env, n));
        *tag(env, 0) = *tag(env, n) = 0;
    } else {
        AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
    }
    put(kept, st(env, 0));
    put(st(env, 0), st(env, n));
    put(st(env, n), kept);
}

/* These change no more than TOP or a tag, and C1 (vol. 2A). */
REPLACES void helper_fincstp_x86_64(void *env)
{
    wait_for(env, HOST);
    turn(env, 1);
    AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
}

REPLACES void helper_fdecstp_x86_64(void *env)
{
    wait_for(env, HOST);
    turn(env, -1);
    AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
}

REPLACES void helper_ffree_STN_x86_64(void *env, int n)
{
    wait_for(env, HOST);
    *tag(env, n) = 1;
}
