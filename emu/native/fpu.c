/* What Unicorn leaves out of loading MXCSR, and of FBSTP. The replaced functions serve every engine, whichever run loop
 * it uses. The originals find their instruction by their return address, so they are jumped to. */
#include "fast.h"

#define HOST ((uint64_t)__builtin_return_address(0))
#define MXCSR_RESERVED (~0xffffu) /* MXCSR_MASK is FFFFh, as FXSAVE says */
#define MXCSR_AT 24               /* in the image of FXSAVE and XSAVE (SDM vol. 1, table 10-2) */
#define XCR0_SSE_AVX 6u

static void refuse_reserved(void *env, uint32_t mxcsr, uint64_t host)
{
    if (mxcsr & MXCSR_RESERVED)
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
}

/* LDMXCSR of reserved bits: #GP(0) (SDM vol. 2A, LDMXCSR). Unicorn loads them. */
REPLACES void helper_ldmxcsr_x86_64(void *env, uint32_t value)
{
    refuse_reserved(env, value, HOST);
    real_helper_ldmxcsr(env, value);
}

/* The same of FXRSTOR (vol. 2A, FXRSTOR), which without CR4.OSFXSR leaves MXCSR alone, as Unicorn's does. An image that
 * is not aligned is Unicorn's to refuse. All of it is touched first (paging.c). */
REPLACES void helper_fxrstor_x86_64(void *env, uint64_t address)
{
    if (address % 16 == 0)
        touch(env, address, fxsave_size(env), 0, HOST);
    if (address % 16 == 0 && (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSFXSR)
        refuse_reserved(env, real_cpu_ldl_data_ra(env, address + MXCSR_AT, HOST), HOST);
    real_helper_fxrstor(env, address);
}

/* XRSTOR loads MXCSR where SSE or AVX is asked for and enabled (vol. 1, 13.8.1). */
REPLACES void helper_xrstor_x86_64(void *env, uint64_t address, uint64_t features)
{
    if (address % 64 == 0 && (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSXSAVE &&
        features & real_helper_xgetbv(env, 0) & XCR0_SSE_AVX)
        refuse_reserved(env, real_cpu_ldl_data_ra(env, address + MXCSR_AT, HOST), HOST);
    real_helper_xrstor(env, address, features);
}

/* ---- FBSTP */

#define BCD_DIGITS 9 /* bytes of two; the sign is behind them */
#define BCD_MOST 999999999999999999ull
#define BIAS 16383
#define INFINITE 0x7fff
#define INTEGER_BIT (1ull << 63)
enum { NEAREST, DOWN, UP };

/* The integer that `mantissa` and `exponent` are rounded to, without its sign; above BCD_MOST for what is none. */
static uint64_t rounded(uint64_t mantissa, int exponent, int negative, int rounding)
{
    int power = exponent - BIAS; /* of the mantissa's highest bit */
    uint64_t whole = 0;
    int rest; /* behind the point: 0 nothing, 1 below a half, 2 a half, 3 above */

    if (exponent == INFINITE || power >= 60 || (exponent && !(mantissa & INTEGER_BIT)))
        return UINT64_MAX;
    if (power < -1) {
        rest = mantissa != 0;
    } else {
        uint64_t behind = mantissa << (power + 1 < 64 ? power + 1 : 0);

        if (power >= 0)
            whole = mantissa >> (63 - power);
        rest = behind > INTEGER_BIT ? 3 : behind == INTEGER_BIT ? 2 : behind != 0;
    }
    switch (rounding) {
    case NEAREST:
        return whole + (rest == 3 || (rest == 2 && whole & 1));
    case DOWN:
        return whole + (negative && rest);
    case UP:
        return whole + (!negative && rest);
    default:
        return whole;
    }
}

/* FBSTP of what has no 18 digits: the packed BCD indefinite, FFFFC000000000000000h (SDM vol. 1, 4.7; vol. 2A, FBSTP).
 * Unicorn stores other digits. It also forgets the sign of -0, and of what is rounded to that. */
REPLACES void helper_fbst_ST0_x86_64(void *env, uint64_t address)
{
    const uint8_t *st0 = (const uint8_t *)env + at.env_fpregs + 16 * (AT(uint32_t, env, at.env_fpstt) & 7);
    uint32_t high = AT(uint16_t, st0, 8), rounding = AT(uint16_t, env, at.env_fpuc) >> 10 & 3;
    int negative = (int)(high >> 15);
    uint64_t value = rounded(AT(uint64_t, st0, 0), (int)(high & INFINITE), negative, (int)rounding);
    uint8_t digits[BCD_DIGITS + 1] = {0};

    touch(env, address, sizeof digits, 1, HOST);
    if (value <= BCD_MOST && (value || !negative)) {
        real_helper_fbst_ST0(env, address);
        return;
    }
    digits[BCD_DIGITS] = 0x80;
    if (value > BCD_MOST)
        digits[BCD_DIGITS - 2] = 0xc0, digits[BCD_DIGITS - 1] = digits[BCD_DIGITS] = 0xff;
    for (int i = BCD_DIGITS; i >= 0; i--) /* the sign first, as Unicorn does */
        real_cpu_stb_data_ra(env, address + (uint64_t)i, digits[i], HOST);
}
