/* x87 arithmetic, comparisons and what computes with the top of the stack, by the host's x87 (SDM vol. 1, 8.3; vol.
 * 2A).
 *
 * Unicorn computes with QEMU's floating point, which sets few flags of the status word and leaves stack faults out, and
 * transcendental functions in the host's double precision (QEMU 5.0.1, target/i386/fpu_helper.c). The host is an x86-64
 * itself: each function executes the instruction that it stands for, under the guest's control word. What is in an
 * empty register is found before. Basic arithmetic is the same on every host; the last bit of a transcendental function
 * is the host's.
 *
 * Unicorn's translator takes an instruction with an operand in memory apart: first the operand is loaded into FT0, then
 * computed with. Here the first only notes what it is, so that the second is the whole instruction. */
#include "x87.h"

/* The second operand, as the instruction has it. */
enum kind { EXTENDED, SINGLE, DOUBLE, INTEGER };
static __thread struct {
    enum kind kind;
    int empty;
    union {
        uint32_t single;
        uint64_t twice;
        int32_t integer;
        uint8_t extended[16];
    } __attribute__((aligned(16)));
} second;

#define NOTES(name, type, what, field)                                                                                 \
    REPLACES void helper_##name##_FT0_x86_64(void *env, type value)                                                    \
    {                                                                                                                  \
        wait_for(env, HOST);                                                                                           \
        second.kind = what;                                                                                            \
        second.empty = 0;                                                                                              \
        second.field = value;                                                                                          \
    }
NOTES(flds, uint32_t, SINGLE, single)
NOTES(fldl, uint64_t, DOUBLE, twice)
NOTES(fildl, int32_t, INTEGER, integer)

/* An operand is empty: the indefinite value takes the place of the result. */
static void underflow(void *env, int n, uint64_t host)
{
    stack_fault(env, 0, host);
    put_indefinite(st(env, n));
    *tag(env, n) = 0;
}

REPLACES void helper_fmov_FT0_STN_x86_64(void *env, int n)
{
    wait_for(env, HOST);
    if (n & FCMOV) {
        begin_fcmov(env, n, HOST);
        return;
    }
    second.kind = EXTENDED;
    second.empty = is_empty(env, n);
    put(second.extended, st(env, n));
}

/* FTST compares with +0 (vol. 2A). */
REPLACES void helper_fldz_FT0_x86_64(void *env)
{
    wait_for(env, HOST);
    second.kind = EXTENDED;
    second.empty = 0;
    memset(second.extended, 0, sizeof second.extended);
}

/* Take what came of an operation into ST(n), or leave it where the operation was not done. */
static void store(void *env, int n, uint32_t status, const long double *result, uint64_t host)
{
    if (unlikely(unmasked(env, status) & X87_BEFORE)) {
        refuse(env, status, host);
        return;
    }
    put(st(env, n), result);
    take_status(env, status);
}

/* ---- Two operands */

#define WITH(loads, instruction, operand)                                                                              \
    OPERATE(env, status, loads, instruction, "fstpt %[r]\n\tfstp %%st(0)", ALSO([r] "=m"(result)),                     \
            ALSO([a] "m"(*a), [b] "m"(operand)))
#define WITH_MEMORY(instruction, operand)                                                                              \
    OPERATE(env, status, "fldt %[a]", instruction " %[b]", "fstpt %[r]", ALSO([r] "=m"(result)),                       \
            ALSO([a] "m"(*a), [b] "m"(operand)))

#define ARITHMETIC(name, op)                                                                                           \
    REPLACES void helper_f##name##_ST0_FT0_x86_64(void *env)                                                           \
    {                                                                                                                  \
        const long double *a = st(env, 0);                                                                             \
        long double result;                                                                                            \
        uint16_t status;                                                                                               \
                                                                                                                       \
        if (unlikely(is_empty(env, 0) || second.empty)) {                                                              \
            underflow(env, 0, HOST);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        switch (second.kind) {                                                                                         \
        case SINGLE:                                                                                                   \
            WITH_MEMORY("f" op "s", second.single);                                                                    \
            break;                                                                                                     \
        case DOUBLE:                                                                                                   \
            WITH_MEMORY("f" op "l", second.twice);                                                                     \
            break;                                                                                                     \
        case INTEGER:                                                                                                  \
            WITH_MEMORY("fi" op "l", second.integer);                                                                  \
            break;                                                                                                     \
        default:                                                                                                       \
            WITH("fldt %[b]\n\tfldt %[a]", "f" op " %%st(1), %%st", second.extended);                                  \
        }                                                                                                              \
        store(env, 0, status, &result, HOST);                                                                          \
    }                                                                                                                  \
    REPLACES void helper_f##name##_STN_ST0_x86_64(void *env, int n)                                                    \
    {                                                                                                                  \
        const long double *a = st(env, n), *b = st(env, 0);                                                            \
        long double result;                                                                                            \
        uint16_t status;                                                                                               \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        if (unlikely(is_empty(env, 0) || is_empty(env, n))) {                                                          \
            underflow(env, n, HOST);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        WITH("fldt %[b]\n\tfldt %[a]", "f" op " %%st(1), %%st", *b);                                                   \
        store(env, n, status, &result, HOST);                                                                          \
    }
ARITHMETIC(add, "add")
ARITHMETIC(mul, "mul")
ARITHMETIC(sub, "sub")
ARITHMETIC(subr, "subr")
ARITHMETIC(div, "div")
ARITHMETIC(divr, "divr")

/* ---- Comparisons */

/* Take the flags of a comparison, and its conditions where it was done. */
static void take_comparison(void *env, uint32_t status, uint64_t host)
{
    uint16_t *fpus = &AT(uint16_t, env, at.env_fpus);

    if (unlikely(unmasked(env, status) & X87_BEFORE)) {
        *fpus = (uint16_t)((*fpus & ~X87_CONDITIONS) | (status & X87_CONDITIONS));
        refuse(env, status, host);
        return;
    }
    *fpus = (uint16_t)((*fpus & ~X87_CONDITIONS) | (status & X87_CONDITIONS));
    take_status(env, status);
}

/* What an empty operand compares as: unordered. */
static int compares_nothing(void *env, uint64_t host)
{
    if (likely(!is_empty(env, 0) && !second.empty))
        return 0;
    AT(uint16_t, env, at.env_fpus) |= X87_C0 | X87_C2 | X87_C3;
    stack_fault(env, 0, host);
    return 1;
}

#define COMPARE(loads, instruction, stores, operand)                                                                   \
    OPERATE(env, status, loads, instruction, stores, NOTHING, ALSO([a] "m"(*a), [b] "m"(operand)))

REPLACES void helper_fcom_ST0_FT0_x86_64(void *env)
{
    const long double *a = st(env, 0);
    uint16_t status;

    if (compares_nothing(env, HOST))
        return;
    switch (second.kind) {
    case SINGLE:
        COMPARE("fldt %[a]", "fcoms %[b]", "fstp %%st(0)", second.single);
        break;
    case DOUBLE:
        COMPARE("fldt %[a]", "fcoml %[b]", "fstp %%st(0)", second.twice);
        break;
    case INTEGER:
        COMPARE("fldt %[a]", "ficoml %[b]", "fstp %%st(0)", second.integer);
        break;
    default:
        COMPARE("fldt %[b]\n\tfldt %[a]", "fcom %%st(1)", "fstp %%st(0)\n\tfstp %%st(0)", second.extended);
    }
    take_comparison(env, status, HOST);
}

REPLACES void helper_fucom_ST0_FT0_x86_64(void *env)
{
    const long double *a = st(env, 0);
    uint16_t status;

    if (compares_nothing(env, HOST))
        return;
    COMPARE("fldt %[b]\n\tfldt %[a]", "fucom %%st(1)", "fstp %%st(0)\n\tfstp %%st(0)", second.extended);
    take_comparison(env, status, HOST);
}

/* FCOMI and its kind: OF, SF and AF are cleared, and the flags themselves are in CC_SRC. Where an operand is refused
 * EFLAGS stay (vol. 2A, FCOMI). */
static void to_eflags(void *env, uint32_t status, uint64_t host)
{
    if (unlikely(unmasked(env, status) & X87_BEFORE))
        refuse(env, status, host);
    take_status(env, status & ~X87_C1);
    AT(uint64_t, env, at.env_cc_src) = (status & X87_C0 ? EFLAGS_CF : 0) | (status & X87_C2 ? EFLAGS_PF : 0) |
                                       (status & X87_C3 ? EFLAGS_ZF : 0);
}

#define COMPARES_FLAGS(name, instruction)                                                                              \
    REPLACES void helper_##name##_ST0_FT0_x86_64(void *env)                                                            \
    {                                                                                                                  \
        const long double *a = st(env, 0);                                                                             \
        uint16_t status = X87_C0 | X87_C2 | X87_C3;                                                                    \
                                                                                                                       \
        if (unlikely(is_empty(env, 0) || second.empty))                                                                \
            stack_fault(env, 0, HOST);                                                                                 \
        else                                                                                                           \
            COMPARE("fldt %[b]\n\tfldt %[a]", instruction " %%st(1)", "fstp %%st(0)\n\tfstp %%st(0)", second.extended); \
        to_eflags(env, status, HOST);                                                                                  \
    }
COMPARES_FLAGS(fcomi, "fcom")
COMPARES_FLAGS(fucomi, "fucom")

/* ---- One operand, with one result in its place; C2 of `conditions`: the operand is out of range */

#define ONE(name, instruction, conditions)                                                                             \
    REPLACES void helper_##name##_x86_64(void *env)                                                                    \
    {                                                                                                                  \
        long double result;                                                                                            \
        uint16_t status, *fpus = &AT(uint16_t, env, at.env_fpus);                                                      \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        if (unlikely(is_empty(env, 0))) {                                                                              \
            underflow(env, 0, HOST);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        OPERATE(env, status, "fldt %[a]", instruction, "fstpt %[r]", ALSO([r] "=m"(result)),                           \
                ALSO([a] "m"(*st(env, 0))));                                                                           \
        *fpus = (uint16_t)((*fpus & ~(conditions)) | (status & (conditions)));                                         \
        store(env, 0, status, &result, HOST);                                                                          \
    }
ONE(fchs_ST0, "fchs", 0u)
ONE(fabs_ST0, "fabs", 0u)
ONE(fsqrt, "fsqrt", 0u)
ONE(frndint, "frndint", 0u)
ONE(f2xm1, "f2xm1", 0u)
ONE(fsin, "fsin", X87_C2)
ONE(fcos, "fcos", X87_C2)

/* C1 is the sign, C3, C2 and C0 say what is in ST(0), an empty register too (vol. 2A, FXAM). */
REPLACES void helper_fxam_ST0_x86_64(void *env)
{
    uint16_t status, *fpus = &AT(uint16_t, env, at.env_fpus);

    wait_for(env, HOST);
    OPERATE(env, status, "fldt %[a]", "fxam", "fstp %%st(0)", NOTHING, ALSO([a] "m"(*st(env, 0))));
    status &= X87_CONDITIONS;
    if (is_empty(env, 0))
        status = (status & X87_C1) | X87_C3 | X87_C0;
    *fpus = (uint16_t)((*fpus & ~X87_CONDITIONS) | status);
}

/* ---- Two operands, ST(0) and ST(1) */

static int is_nan(const void *value)
{
    return (AT(uint16_t, value, 8) & 0x7fff) == 0x7fff && AT(uint64_t, value, 0) << 1;
}

/* The result is in ST(0). C0, C1 and C3 are FPREM's quotient and C2 says that it is not complete; of a NaN there is
 * none, and C0 and C3 are kept. */
#define OF_TWO(name, instruction, conditions)                                                                          \
    REPLACES void helper_##name##_x86_64(void *env)                                                                    \
    {                                                                                                                  \
        long double result;                                                                                            \
        uint16_t status, *fpus = &AT(uint16_t, env, at.env_fpus);                                                      \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        *fpus = (uint16_t)(*fpus & ~((conditions) & X87_C2));                                                          \
        if (unlikely(is_empty(env, 0) || is_empty(env, 1))) {                                                          \
            underflow(env, 0, HOST);                                                                                   \
            return;                                                                                                    \
        }                                                                                                              \
        OPERATE(env, status, "fldt %[b]\n\tfldt %[a]", instruction, "fstpt %[r]\n\tfstp %%st(0)",                      \
                ALSO([r] "=m"(result)), ALSO([a] "m"(*st(env, 0)), [b] "m"(*st(env, 1))));                             \
        if (likely(!is_nan(&result) && !(status & X87_IE)))                                                            \
            *fpus = (uint16_t)((*fpus & ~(conditions)) | (status & (conditions)));                                     \
        store(env, 0, status, &result, HOST);                                                                          \
    }
OF_TWO(fscale, "fscale", 0u)
OF_TWO(fprem, "fprem", X87_CONDITIONS)
OF_TWO(fprem1, "fprem1", X87_CONDITIONS)

/* The result is in ST(1), and ST(0) is popped. */
#define POPS(name, instruction)                                                                                        \
    REPLACES void helper_##name##_x86_64(void *env)                                                                    \
    {                                                                                                                  \
        long double result;                                                                                            \
        uint16_t status;                                                                                               \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        if (unlikely(is_empty(env, 0) || is_empty(env, 1))) {                                                          \
            underflow(env, 1, HOST);                                                                                   \
        } else {                                                                                                       \
            OPERATE(env, status, "fldt %[b]\n\tfldt %[a]", instruction, "fstpt %[r]",                                  \
                    ALSO([r] "=m"(result)), ALSO([a] "m"(*st(env, 0)), [b] "m"(*st(env, 1))));                         \
            store(env, 1, status, &result, HOST);                                                                      \
        }                                                                                                              \
        *tag(env, 0) = 1;                                                                                              \
        turn(env, 1);                                                                                                  \
    }
POPS(fyl2x, "fyl2x")
POPS(fyl2xp1, "fyl2xp1")
POPS(fpatan, "fpatan")

/* ---- One operand, with two results, of which the second is pushed; `out`: C2 says that it is out of range, and
 * nothing is done */

/* What was below the operand may be left or not. */
#define EMPTY_STACK "fninit\n\tfldcw %[control]"

#define PUSHES(name, instruction, out)                                                                                 \
    REPLACES void helper_##name##_x86_64(void *env)                                                                    \
    {                                                                                                                  \
        long double lower, upper;                                                                                      \
        uint16_t status, *fpus = &AT(uint16_t, env, at.env_fpus);                                                      \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        if (unlikely(is_empty(env, 0) || !is_empty(env, -1))) {                                                        \
            stack_fault(env, is_empty(env, 0) ? 0 : X87_C1, HOST);                                                     \
            put_indefinite(&lower);                                                                                    \
            put_indefinite(&upper);                                                                                    \
            *tag(env, 0) = 0;                                                                                          \
        } else {                                                                                                       \
            OPERATE(env, status, "fldz\n\tfldt %[a]", instruction, "fstpt %[u]\n\tfstpt %[l]\n\t" EMPTY_STACK,         \
                    ALSO([u] "=m"(upper), [l] "=m"(lower)), ALSO([a] "m"(*st(env, 0))));                               \
            *fpus = (uint16_t)((*fpus & ~(out)) | (status & (out)));                                                   \
            if (unlikely(unmasked(env, status) & X87_BEFORE)) {                                                        \
                refuse(env, status, HOST);                                                                             \
                return;                                                                                                \
            }                                                                                                          \
            take_status(env, status);                                                                                  \
            if (status & (out))                                                                                        \
                return;                                                                                                \
        }                                                                                                              \
        put(st(env, 0), &lower);                                                                                       \
        turn(env, -1);                                                                                                 \
        put(st(env, 0), &upper);                                                                                       \
        *tag(env, 0) = 0;                                                                                              \
    }
PUSHES(fptan, "fptan", X87_C2)
PUSHES(fsincos, "fsincos", X87_C2)
PUSHES(fxtract, "fxtract", 0u)
