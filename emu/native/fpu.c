/* What Unicorn leaves out of loading MXCSR. The replaced functions serve every engine, whichever run loop
 * it uses. The originals find their instruction by their return address, so they are jumped to. */
#include "x87.h"

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
    prepare(env, HOST);
    real_helper_fxrstor(env, address);
    prepared(env);
    keep_control(env);
    find_pending(env);
}

/* XRSTOR loads MXCSR where SSE or AVX is asked for and enabled (vol. 1, 13.8.1). */
REPLACES void helper_xrstor_x86_64(void *env, uint64_t address, uint64_t features)
{
    if (address % 64 == 0 && (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSXSAVE &&
        features & real_helper_xgetbv(env, 0) & XCR0_SSE_AVX)
        refuse_reserved(env, real_cpu_ldl_data_ra(env, address + MXCSR_AT, HOST), HOST);
    prepare(env, HOST);
    real_helper_xrstor(env, address, features);
    prepared(env);
    keep_control(env);
    find_pending(env);
}
