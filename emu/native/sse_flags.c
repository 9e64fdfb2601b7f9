/* What the flags of an SSE operation make: MXCSR's, and #XM (SDM vol. 1, 11.5). */
#include "sse.h"

static const struct {
    int count, size;
} shapes[] = {{0, 0}, {1, 4}, {4, 4}, {2, 4}, {1, 8}, {2, 8}};

static uint64_t bits_of(const void *number, int size)
{
    uint64_t bits = 0;

    memcpy(&bits, number, (size_t)size);
    return bits;
}

/* A number as x87 has it, which takes any. */
static long double extended(const void *number, int size)
{
    float single;
    double twice;

    if (size == 4) {
        memcpy(&single, number, sizeof single);
        return single;
    }
    memcpy(&twice, number, sizeof twice);
    return twice;
}

/* Underflow that is masked needs an inexact result, one that is not masked only a tiny one (vol. 1, 4.9.1.5). */
static int is_tiny(const struct done *d)
{
    int size = shapes[d->shape].size;

    for (int i = 0; i < shapes[d->shape].count; i++) {
        uint64_t bits = bits_of((const uint8_t *)d->result + i * size, size);
        uint64_t fraction = size == 4 ? 0x7fffff : 0xfffffffffffff;
        uint64_t exponent = size == 4 ? 0x7f800000 : 0x7ff0000000000000;

        if (!(bits & exponent) && bits & fraction)
            return 1;
    }
    return 0;
}

/* True when the result would be inexact if exponents had no end. The host's x87 rounds to the same precision and has
 * exponents enough. `mxcsr`: the direction. */
static int is_inexact(enum operation operation, long double a, long double b, int size, uint32_t mxcsr)
{
    uint16_t old, now = (uint16_t)(0x3f | (size == 4 ? 0 : 0x200) | (mxcsr & RC) >> RC_SHIFT << 10), status;

#define WITH_X87(instruction)                                                                                          \
    __asm__ volatile("fnstcw %[old]\n\tfnclex\n\tfldcw %[now]\n\tfldt %[a]\n\tfldt %[b]\n\t" instruction               \
                     "\n\tfnstsw %[status]\n\tfstp %%st(0)\n\tfnclex\n\tfldcw %[old]"                                  \
                     : [old] "=m"(old), [status] "=a"(status)                                                          \
                     : [now] "m"(now), [a] "m"(a), [b] "m"(b)                                                          \
                     : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)")
    switch (operation) {
    case ADD:
        WITH_X87("faddp");
        break;
    case SUBTRACT:
        WITH_X87("fchs\n\tfaddp");
        break;
    case DIVIDE: /* the form with two registers whose name assemblers agree about */
        WITH_X87("fxch\n\tfdiv %%st(1), %%st\n\tfstp %%st(1)");
        break;
    default:
        WITH_X87("fmulp");
    }
#undef WITH_X87
    return (status & PRECISION) != 0;
}

/* The flags of one number's operation. Overflow and underflow that are `enabled` are inexact only where the result would
 * be without an end of the exponents (vol. 1, 4.9.1.4 and 4.9.1.5). */
static uint32_t flags_of(const struct done *d, int number, uint32_t mxcsr, uint32_t enabled)
{
    int size = shapes[d->shape].size;
    enum operation operation = d->operation;
    vector x = {0}, y = {0};
    uint32_t now = mxcsr;
    long double a, b;

    if (operation == ADD_SUBTRACT)
        operation = number & 1 ? ADD : SUBTRACT;
    if (operation == NARROW) {
        memcpy(&y, (const uint8_t *)d->second + 8 * number, 8);
        b = extended(&y, 8);
        a = 1;
    } else {
        memcpy(&x, (const uint8_t *)d->first + size * number, (size_t)size);
        memcpy(&y, (const uint8_t *)d->second + size * number, (size_t)size);
        a = extended(&x, size);
        b = extended(&y, size);
    }
#define ONE(name)                                                                                                      \
    if (size == 4)                                                                                                     \
        EXECUTE(name "ss %[s], %[d]", x, y, now);                                                                      \
    else                                                                                                               \
        EXECUTE(name "sd %[s], %[d]", x, y, now);                                                                      \
    break
    switch (operation) {
    case ADD:
        ONE("add");
    case SUBTRACT:
        ONE("sub");
    case MULTIPLY:
        ONE("mul");
    case DIVIDE:
        ONE("div");
    default:
        EXECUTE("cvtsd2ss %[s], %[d]", x, y, now);
    }
#undef ONE
    if (now & enabled & (OVERFLOW | UNDERFLOW) && !is_inexact(operation, a, b, size, mxcsr))
        now &= ~PRECISION;
    return now & FLAGS;
}

/* Raise what is unmasked of `flags`: #XM, or #UD without CR4.OSXMMEXCPT. Where one is found before the operation
 * nothing of its result is reported (vol. 1, 11.5.2). */
static __attribute__((noinline)) void raise_unmasked(void *env, uint32_t flags, const struct done *d, uint64_t host)
{
    uint32_t *mxcsr = &AT(uint32_t, env, at.env_mxcsr), enabled = ~*mxcsr >> MASKS_SHIFT & FLAGS;

    if (flags & enabled & BEFORE) {
        flags &= BEFORE;
    } else if (flags & enabled & (OVERFLOW | UNDERFLOW) && d->operation != NO_OPERATION) {
        flags &= UNDERFLOW; /* which settle has found */
        for (int i = 0; i < shapes[d->shape].count; i++)
            flags |= flags_of(d, i, masked(env), enabled);
    }
    *mxcsr |= flags;
    if (flags & enabled) {
        leave_mmx_for_exception(env, host);
        real_raise_exception_err_ra(env, (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSXMMEXCPT ? EXCP_XM : EXCP_UD, 0,
                                    host);
    }
}

/* Take the flags of an operation into MXCSR, and raise what is unmasked, before its result is stored. */
void settle(void *env, uint32_t flags, struct done d, uint64_t host)
{
    uint32_t *mxcsr = &AT(uint32_t, env, at.env_mxcsr), enabled = ~*mxcsr >> MASKS_SHIFT & FLAGS;

    flags &= FLAGS;
    if (unlikely(enabled & UNDERFLOW) && is_tiny(&d))
        flags |= UNDERFLOW;
    if (unlikely(flags & enabled))
        raise_unmasked(env, flags, &d, host);
    *mxcsr |= flags;
}
