/* SSE to SSE4.1 arithmetic: its exceptions, and denormals as MXCSR says.
 *
 * Unicorn computes with QEMU's floating point, which sets no flag of MXCSR, raises nothing, does not know FZ, and takes
 * the NaN that x87 would. The host is an x86-64 itself: each function executes the instruction that it stands for,
 * under the guest's MXCSR with everything masked, so that result and flags are the architecture's. What the guest has
 * unmasked is raised before anything is stored (SDM vol. 1, 11.5). IEEE arithmetic is the same on every host. Names and
 * arguments are those of QEMU 5.0.1, target/i386/ops_sse_header.h. They serve every engine, whichever run loop it uses.
 * */
#include "sse.h"

#define HOST ((uint64_t)__builtin_return_address(0))

#define VECTOR(name, instruction, operation, shape)                                                                    \
    REPLACES void helper_##name##_x86_64(void *env, void *destination, const void *source)                             \
    {                                                                                                                  \
        vector first = load(destination), d = first, s = load(source);                                                 \
        uint32_t mxcsr = masked(env);                                                                                  \
                                                                                                                       \
        EXECUTE(instruction " %[s], %[d]", d, s, mxcsr);                                                               \
        settle(env, mxcsr, (struct done){operation, shape, &first, &s, &d}, HOST);                                     \
        memcpy(destination, &d, sizeof d);                                                                             \
    }

#define ARITHMETIC(name, operation)                                                                                    \
    VECTOR(name##ps, #name "ps", operation, SINGLES)                                                                   \
    VECTOR(name##ss, #name "ss", operation, SINGLE)                                                                    \
    VECTOR(name##pd, #name "pd", operation, DOUBLES)                                                                   \
    VECTOR(name##sd, #name "sd", operation, DOUBLE)
ARITHMETIC(add, ADD)
ARITHMETIC(sub, SUBTRACT)
ARITHMETIC(mul, MULTIPLY)
ARITHMETIC(div, DIVIDE)
VECTOR(addsubps, "addsubps", ADD_SUBTRACT, SINGLES)
VECTOR(addsubpd, "addsubpd", ADD_SUBTRACT, DOUBLES)

/* These have no small results but those that were operands, which is no underflow. */
#define OTHERS(name, instruction)                                                                                      \
    VECTOR(name##ps, instruction "ps", NO_OPERATION, NO_NUMBER)                                                        \
    VECTOR(name##ss, instruction "ss", NO_OPERATION, NO_NUMBER)                                                        \
    VECTOR(name##pd, instruction "pd", NO_OPERATION, NO_NUMBER)                                                        \
    VECTOR(name##sd, instruction "sd", NO_OPERATION, NO_NUMBER)
OTHERS(min, "min")
OTHERS(max, "max")
OTHERS(sqrt, "sqrt")
OTHERS(cmpeq, "cmpeq")
OTHERS(cmplt, "cmplt")
OTHERS(cmple, "cmple")
OTHERS(cmpunord, "cmpunord")
OTHERS(cmpneq, "cmpneq")
OTHERS(cmpnlt, "cmpnlt")
OTHERS(cmpnle, "cmpnle")
OTHERS(cmpord, "cmpord")

/* Neighbours' sums and differences: the even numbers of both operands and the odd ones, then as the plain operation. */
#define HORIZONTAL(name, instruction, operation, shape, type, count)                                                   \
    REPLACES void helper_##name##_x86_64(void *env, void *destination, const void *source)                             \
    {                                                                                                                  \
        type both[2 * count], even[count], odd[count];                                                                 \
        vector first, d, s;                                                                                            \
        uint32_t mxcsr = masked(env);                                                                                  \
                                                                                                                       \
        memcpy(both, destination, sizeof even);                                                                        \
        memcpy(both + count, source, sizeof even);                                                                     \
        for (int i = 0; i < count; i++)                                                                                \
            even[i] = both[2 * i], odd[i] = both[2 * i + 1];                                                           \
        first = d = load(even);                                                                                        \
        s = load(odd);                                                                                                 \
        EXECUTE(instruction " %[s], %[d]", d, s, mxcsr);                                                               \
        settle(env, mxcsr, (struct done){operation, shape, &first, &s, &d}, HOST);                                     \
        memcpy(destination, &d, sizeof d);                                                                             \
    }
HORIZONTAL(haddps, "addps", ADD, SINGLES, uint32_t, 4)
HORIZONTAL(haddpd, "addpd", ADD, DOUBLES, uint64_t, 2)
HORIZONTAL(hsubps, "subps", SUBTRACT, SINGLES, uint32_t, 4)
HORIZONTAL(hsubpd, "subpd", SUBTRACT, DOUBLES, uint64_t, 2)

VECTOR(cvtps2pd, "cvtps2pd", NO_OPERATION, NO_NUMBER)
VECTOR(cvtpd2ps, "cvtpd2ps", NARROW, TWO_SINGLES)
VECTOR(cvtss2sd, "cvtss2sd", NO_OPERATION, NO_NUMBER)
VECTOR(cvtsd2ss, "cvtsd2ss", NARROW, SINGLE)
VECTOR(cvtdq2ps, "cvtdq2ps", NO_OPERATION, NO_NUMBER)
VECTOR(cvtps2dq, "cvtps2dq", NO_OPERATION, NO_NUMBER)
VECTOR(cvtpd2dq, "cvtpd2dq", NO_OPERATION, NO_NUMBER)
VECTOR(cvttps2dq, "cvttps2dq", NO_OPERATION, NO_NUMBER)
VECTOR(cvttpd2dq, "cvttpd2dq", NO_OPERATION, NO_NUMBER)

/* RCPPS and RSQRTPS promise 12 bits and no exceptions; each CPU has an approximation of its own, so the quotient itself
 * is taken. Denormal operands are zeros, and tiny results too, whatever MXCSR says (vol. 2B, RCPPS). */
#define APPROXIMATION(name, count, root)                                                                               \
    REPLACES void helper_##name##_x86_64(void *env, void *destination, const void *source)                             \
    {                                                                                                                  \
        vector d = {1, 1, 1, 1}, s = load(source);                                                                     \
        uint32_t mxcsr = MASKS | DAZ | FZ;                                                                             \
                                                                                                                       \
        (void)env;                                                                                                     \
        if (root)                                                                                                      \
            EXECUTE("sqrtps %[s], %[d]", s, s, mxcsr);                                                                 \
        EXECUTE("divps %[s], %[d]", d, s, mxcsr);                                                                      \
        memcpy(destination, &d, 4 * count);                                                                            \
    }
APPROXIMATION(rcpps, 4, 0)
APPROXIMATION(rcpss, 1, 0)
APPROXIMATION(rsqrtps, 4, 1)
APPROXIMATION(rsqrtss, 1, 1)

/* ---- Integers from and to general registers */

#define TO_INTEGER(name, type, instruction)                                                                            \
    REPLACES type helper_##name##_x86_64(void *env, const void *source)                                                \
    {                                                                                                                  \
        vector s = load(source);                                                                                       \
        uint32_t mxcsr = masked(env), old;                                                                             \
        type result;                                                                                                   \
                                                                                                                       \
        __asm__ volatile("stmxcsr %[old]\n\tldmxcsr %[mxcsr]\n\t" instruction " %[s], %[result]"                       \
                         "\n\tstmxcsr %[mxcsr]\n\tldmxcsr %[old]"                                                      \
                         : [result] "=&r"(result), [old] "=m"(old), [mxcsr] "+m"(mxcsr)                                \
                         : [s] "x"(s));                                                                                \
        settle(env, mxcsr, (struct done){0}, HOST);                                                                    \
        return result;                                                                                                 \
    }
TO_INTEGER(cvtss2si, int32_t, "cvtss2sil")
TO_INTEGER(cvtsd2si, int32_t, "cvtsd2sil")
TO_INTEGER(cvttss2si, int32_t, "cvttss2sil")
TO_INTEGER(cvttsd2si, int32_t, "cvttsd2sil")
TO_INTEGER(cvtss2sq, int64_t, "cvtss2siq")
TO_INTEGER(cvtsd2sq, int64_t, "cvtsd2siq")
TO_INTEGER(cvttss2sq, int64_t, "cvttss2siq")
TO_INTEGER(cvttsd2sq, int64_t, "cvttsd2siq")

#define FROM_INTEGER(name, type, instruction)                                                                          \
    REPLACES void helper_##name##_x86_64(void *env, void *destination, type value)                                     \
    {                                                                                                                  \
        vector d = load(destination);                                                                                  \
        uint32_t mxcsr = masked(env), old;                                                                             \
                                                                                                                       \
        __asm__ volatile("stmxcsr %[old]\n\tldmxcsr %[mxcsr]\n\t" instruction " %[s], %[d]"                            \
                         "\n\tstmxcsr %[mxcsr]\n\tldmxcsr %[old]"                                                      \
                         : [d] "+x"(d), [old] "=m"(old), [mxcsr] "+m"(mxcsr)                                           \
                         : [s] "r"(value));                                                                            \
        settle(env, mxcsr, (struct done){0}, HOST);                                                                    \
        memcpy(destination, &d, sizeof d);                                                                             \
    }
FROM_INTEGER(cvtsi2ss, uint32_t, "cvtsi2ssl")
FROM_INTEGER(cvtsq2ss, uint64_t, "cvtsi2ssq")
FROM_INTEGER(cvtsq2sd, uint64_t, "cvtsi2sdq")

/* ---- MMX registers, by instructions that touch none of the host's: it shares them with x87 */

#define MMX 8 /* bytes */

#define TO_MMX(name, instruction, bytes)                                                                               \
    REPLACES void helper_##name##_x86_64(void *env, void *destination, const void *source)                             \
    {                                                                                                                  \
        vector s = {0}, d = {0};                                                                                       \
        uint32_t mxcsr = masked(env);                                                                                  \
                                                                                                                       \
        memcpy(&s, source, bytes);                                                                                     \
        EXECUTE(instruction " %[s], %[d]", d, s, mxcsr);                                                               \
        settle(env, mxcsr, (struct done){0}, HOST);                                                                    \
        memcpy(destination, &d, MMX);                                                                                  \
    }
TO_MMX(cvtps2pi, "cvtps2dq", MMX)
TO_MMX(cvttps2pi, "cvttps2dq", MMX)
TO_MMX(cvtpd2pi, "cvtpd2dq", 16)
TO_MMX(cvttpd2pi, "cvttpd2dq", 16)

REPLACES void helper_cvtpi2ps_x86_64(void *env, void *destination, const void *source)
{
    vector s = {0}, d = {0};
    uint32_t mxcsr = masked(env);

    memcpy(&s, source, MMX);
    EXECUTE("cvtdq2ps %[s], %[d]", d, s, mxcsr);
    settle(env, mxcsr, (struct done){0}, HOST);
    memcpy(destination, &d, MMX);
}

/* ---- Comparisons into EFLAGS (vol. 2A, COMISS): OF, SF and AF are cleared, and the flags themselves are in CC_SRC */

#define TO_FLAGS(name)                                                                                                 \
    REPLACES void helper_##name##_x86_64(void *env, const void *first, const void *second)                             \
    {                                                                                                                  \
        vector d = load(first), s = load(second);                                                                      \
        uint32_t mxcsr = masked(env), old;                                                                             \
        int above_not, equal, unordered;                                                                               \
                                                                                                                       \
        __asm__ volatile("stmxcsr %[old]\n\tldmxcsr %[mxcsr]\n\t" #name " %[s], %[d]"                                  \
                         "\n\tstmxcsr %[mxcsr]\n\tldmxcsr %[old]"                                                      \
                         : [old] "=m"(old), [mxcsr] "+m"(mxcsr), "=@ccc"(above_not), "=@ccz"(equal),                   \
                           "=@ccp"(unordered)                                                                          \
                         : [s] "x"(s), [d] "x"(d));                                                                    \
        settle(env, mxcsr, (struct done){0}, HOST);                                                                    \
        AT(uint64_t, env, at.env_cc_src) = (above_not ? EFLAGS_CF : 0) | (unordered ? EFLAGS_PF : 0) |                 \
                                           (equal ? EFLAGS_ZF : 0);                                                    \
    }
TO_FLAGS(ucomiss)
TO_FLAGS(comiss)
TO_FLAGS(ucomisd)
TO_FLAGS(comisd)

/* ---- SSE4.1, which a host may lack */

static int has_sse41(void)
{
    return __builtin_cpu_supports("sse4.1");
}

/* ROUNDPS and its kind: the direction is the immediate's, or MXCSR's with bit 2; bit 3 leaves PE out (vol. 2B). */
#define ROUND(name)                                                                                                    \
    REPLACES void helper_##name##_xmm_x86_64(void *env, void *destination, const void *source, uint32_t mode)          \
    {                                                                                                                  \
        vector d = load(destination), s = load(source);                                                                \
        uint32_t mxcsr = masked(env);                                                                                  \
                                                                                                                       \
        if (!has_sse41()) {                                                                                            \
            real_helper_##name##_xmm(env, destination, source, mode);                                                  \
            return;                                                                                                    \
        }                                                                                                              \
        if (!(mode & 4))                                                                                               \
            mxcsr = (mxcsr & ~RC) | (mode & 3) << RC_SHIFT;                                                            \
        EXECUTE(#name " $4, %[s], %[d]", d, s, mxcsr);                                                                 \
        if (mode & 8)                                                                                                  \
            mxcsr &= ~PRECISION;                                                                                       \
        settle(env, mxcsr, (struct done){0}, HOST);                                                                    \
        memcpy(destination, &d, sizeof d);                                                                             \
    }
ROUND(roundps)
ROUND(roundss)
ROUND(roundpd)
ROUND(roundsd)

/* The products that bits 4 to 7 of `mask` choose, the others 0; those bits 0 to 3 store the sum. Products and sums are
 * operations of their own, each with its exceptions (vol. 2A, DPPS). */
#define PRODUCTS(name, suffix, shape, type, count, sums)                                                               \
    REPLACES void helper_##name##_xmm_x86_64(void *env, void *destination, const void *source, uint32_t mask)          \
    {                                                                                                                  \
        type a[count], b[count];                                                                                       \
        vector first, d, s;                                                                                            \
        uint32_t mxcsr = masked(env);                                                                                  \
                                                                                                                       \
        memcpy(a, destination, sizeof a);                                                                              \
        memcpy(b, source, sizeof b);                                                                                   \
        for (int i = 0; i < count; i++)                                                                                \
            if (!(mask >> (4 + i) & 1))                                                                                \
                a[i] = b[i] = 0;                                                                                       \
        first = d = load(a);                                                                                           \
        s = load(b);                                                                                                   \
        EXECUTE("mul" suffix " %[s], %[d]", d, s, mxcsr);                                                              \
        settle(env, mxcsr, (struct done){MULTIPLY, shape, &first, &s, &d}, HOST);                                      \
        for (int n = 0; n < sums; n++) {                                                                               \
            memcpy(a, &d, sizeof a);                                                                                   \
            for (int i = 0; i < count; i++)                                                                            \
                b[i] = a[(2 * i + 1) % count];                                                                         \
            for (int i = 0; i < count / 2; i++)                                                                        \
                a[i] = a[2 * i];                                                                                       \
            memcpy(a + count / 2, a, sizeof a / 2);                                                                    \
            first = d = load(a);                                                                                       \
            s = load(b);                                                                                               \
            mxcsr = masked(env);                                                                                       \
            EXECUTE("add" suffix " %[s], %[d]", d, s, mxcsr);                                                          \
            settle(env, mxcsr, (struct done){ADD, shape, &first, &s, &d}, HOST);                                       \
        }                                                                                                              \
        memcpy(a, &d, sizeof a);                                                                                       \
        for (int i = 0; i < count; i++)                                                                                \
            a[i] = mask >> i & 1 ? a[count - 1] : 0;                                                                   \
        memcpy(destination, a, sizeof a);                                                                              \
    }
PRODUCTS(dpps, "ps", SINGLES, uint32_t, 4, 2)
PRODUCTS(dppd, "pd", DOUBLES, uint64_t, 2, 1)

/* Horizontal sums and PACKUSDW of a register with itself (SDM vol. 2B, PHADDW): Unicorn stores what it makes of the first
 * operand before it reads the second. */
#define FROM_A_COPY(name)                                                                                              \
    REPLACES void helper_##name##_x86_64(void *env, void *to, void *from)                                              \
    {                                                                                                                  \
        uint8_t copy[16];                                                                                              \
                                                                                                                       \
        memcpy(copy, from, sizeof copy);                                                                               \
        real_helper_##name(env, to, copy);                                                                             \
    }
FROM_A_COPY(phaddw_mmx)
FROM_A_COPY(phaddd_mmx)
FROM_A_COPY(phaddsw_mmx)
FROM_A_COPY(phsubw_mmx)
FROM_A_COPY(phsubd_mmx)
FROM_A_COPY(phsubsw_mmx)
FROM_A_COPY(phaddw_xmm)
FROM_A_COPY(phaddd_xmm)
FROM_A_COPY(phaddsw_xmm)
FROM_A_COPY(phsubw_xmm)
FROM_A_COPY(phsubd_xmm)
FROM_A_COPY(phsubsw_xmm)
FROM_A_COPY(packusdw_xmm)
