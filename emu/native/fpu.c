/* MXCSR, and the images of FXSAVE and XSAVE (SDM vol. 1, 10.5 and 13; vol. 2A, FXSAVE; vol. 2D, XSAVE). The replaced
 * functions serve every engine, whichever run loop it uses.
 *
 * Unicorn stores no pointers to the last x87 instruction but its offset, loads none, and finds a page fault when part of
 * the image has been stored or loaded (QEMU 5.0.1, target/i386/fpu_helper.c). */
#include "checks.h"
#include "segments.h"
#include "x87.h"

#define MXCSR_RESERVED (~0xffffu) /* MXCSR_MASK is FFFFh, as FXSAVE says */

/* In the image (vol. 1, table 10-2 and 13.4). */
#define FOP_AT 6
#define FIP_AT 8
#define FCS_AT 12
#define FDP_AT 16
#define FDS_AT 20
#define MXCSR_AT 24
#define REGISTERS_AT 32
#define XMM_AT 160
#define HEADER_AT 512
#define XCOMP_AT 520
/* State components: bits of XCR0, of which CPUID leaf 0Dh offers these. Nothing writes the upper halves of the YMM
 * registers, which Unicorn neither stores nor loads. */
#define X87_STATE 1u
#define SSE_STATE 2u
#define AVX_STATE 4u

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

/* ---- The pointers */

/* Whether the instruction that called from `host` has REX.W: the pointers are offsets of 64 bits, without selectors. The
 * CPU's state is that of the instruction. */
static int has_wide_pointers(void *env, uint64_t host)
{
    uint8_t bytes[LONGEST];
    int length, rex = 0;

    if (!(AT(uint32_t, env, at.env_hflags) & HF_CS64))
        return 0;
    length = bytes_at(env, AT(uint64_t, env, at.env_eip), host, bytes);
    for (int i = 0; i < length && bytes[i] != 0x0f; i++)
        rex = bytes[i];
    return (rex & 0xf8) == 0x48;
}

static void store_pointers(void *env, uint64_t address, uint64_t host)
{
    uint64_t ip = AT(uint64_t, env, at.env_fpip), dp = AT(uint64_t, env, at.env_fpdp);

    real_cpu_stw_data_ra(env, address + FOP_AT, AT(uint16_t, env, at.env_fpop), host);
    if (has_wide_pointers(env, host)) {
        real_cpu_stq_data_ra(env, address + FIP_AT, ip, host);
        real_cpu_stq_data_ra(env, address + FDP_AT, dp, host);
        return;
    }
    real_cpu_stl_data_ra(env, address + FIP_AT, (uint32_t)ip, host);
    real_cpu_stl_data_ra(env, address + FCS_AT, AT(uint16_t, env, at.env_fpcs), host);
    real_cpu_stl_data_ra(env, address + FDP_AT, (uint32_t)dp, host);
    real_cpu_stl_data_ra(env, address + FDS_AT, AT(uint16_t, env, at.env_fpds), host);
}

static void load_pointers(void *env, uint64_t address, uint64_t host)
{
    uint64_t ip = real_cpu_ldq_data_ra(env, address + FIP_AT, host);
    uint64_t dp = real_cpu_ldq_data_ra(env, address + FDP_AT, host);
    int wide = has_wide_pointers(env, host);

    AT(uint16_t, env, at.env_fpop) = real_cpu_lduw_data_ra(env, address + FOP_AT, host) & 0x7ff;
    AT(uint64_t, env, at.env_fpip) = wide ? ip : (uint32_t)ip;
    AT(uint64_t, env, at.env_fpdp) = wide ? dp : (uint32_t)dp;
    AT(uint16_t, env, at.env_fpcs) = wide ? 0 : (uint16_t)(ip >> 32);
    AT(uint16_t, env, at.env_fpds) = wide ? 0 : (uint16_t)(dp >> 32);
}

/* ---- FXSAVE and FXRSTOR */

static uint32_t xmm_size(void *env)
{
    return 16 * (AT(uint32_t, env, at.env_hflags) & HF_CS64 ? 16 : 8);
}

/* Bytes of the image that are written and read here: reserved ones, at its end, are not. */
static uint32_t fxsave_size(void *env)
{
    return XMM_AT + ((&AT(uint64_t, env, at.env_cr))[4] & CR4_OSFXSR ? xmm_size(env) : 0);
}

/* What is not aligned is #GP(0), which comes first and is Unicorn's. */
REPLACES void helper_fxsave_x86_64(void *env, uint64_t address)
{
    if (address % 16 == 0)
        touch(env, address, fxsave_size(env), 1, HOST);
    prepare(env, HOST);
    real_helper_fxsave(env, address);
    store_pointers(env, address, HOST);
    prepared(env);
}

/* Without CR4.OSFXSR MXCSR is left alone, as Unicorn's does. */
REPLACES void helper_fxrstor_x86_64(void *env, uint64_t address)
{
    if (address % 16 == 0)
        touch(env, address, fxsave_size(env), 0, HOST);
    if (address % 16 == 0 && (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSFXSR)
        refuse_reserved(env, real_cpu_ldl_data_ra(env, address + MXCSR_AT, HOST), HOST);
    prepare(env, HOST);
    real_helper_fxrstor(env, address);
    load_pointers(env, address, HOST);
    prepared(env);
    keep_control(env);
    find_pending(env);
}

/* ---- XSAVE and XRSTOR, of the standard form */

/* Touch what is stored or loaded of `components`, and MXCSR, which goes with SSE and AVX. */
static void touch_components(void *env, uint64_t address, uint64_t components, int mxcsr, int write, uint64_t host)
{
    if (components & X87_STATE) {
        touch(env, address, MXCSR_AT, write, host);
        touch(env, address + REGISTERS_AT, XMM_AT - REGISTERS_AT, write, host);
    }
    if (mxcsr)
        touch(env, address + MXCSR_AT, REGISTERS_AT - MXCSR_AT, write, host);
    if (components & SSE_STATE)
        touch(env, address + XMM_AT, xmm_size(env), write, host);
}

/* True when the instruction is neither #UD nor #GP(0) at once, which are Unicorn's to raise. */
static int may_begin(void *env, uint64_t address)
{
    return address % 64 == 0 && (&AT(uint64_t, env, at.env_cr))[4] & CR4_OSXSAVE;
}

/* With CR0.TS they are #NM, behind #UD and before what is wrong with the operand (vol. 2D). Unicorn does not look at it
 * (QEMU 5.0.1, and 7.2 too, target/i386/tcg/fpu_helper.c, do_xsave and do_xrstor). */
static void need_fpu(void *env, uint64_t host)
{
    const uint64_t *cr = &AT(uint64_t, env, at.env_cr);

    if (cr[4] & CR4_OSXSAVE && cr[0] & CR0_TS)
        real_raise_exception_err_ra(env, EXCP_NM, 0, host);
}

static uint64_t components_of(void *env, uint64_t features)
{
    return features & real_helper_xgetbv(env, 0);
}

/* The CPU may leave out of XSAVEOPT what is in its initial state, or has not been changed (vol. 2D); this one does not. */
static void save(void *env, uint64_t address, uint64_t features, void (*real)(void *, uint64_t, uint64_t), uint64_t host)
{
    int begins = may_begin(env, address);
    uint64_t asked = begins ? components_of(env, features) : 0;

    need_fpu(env, host);
    if (begins) {
        touch_components(env, address, asked, (asked & (SSE_STATE | AVX_STATE)) != 0, 1, host);
        touch(env, address + HEADER_AT, 8, 1, host);
    }
    prepare(env, host);
    real(env, address, features);
    if (asked & X87_STATE)
        store_pointers(env, address, host);
    prepared(env);
}

REPLACES void helper_xsave_x86_64(void *env, uint64_t address, uint64_t features)
{
    save(env, address, features, real_helper_xsave, HOST);
}

REPLACES void helper_xsaveopt_x86_64(void *env, uint64_t address, uint64_t features)
{
    save(env, address, features, real_helper_xsaveopt, HOST);
}

/* XRSTOR loads MXCSR where SSE or AVX is asked for and enabled (vol. 1, 13.8.1). A header that is wrong is #GP(0), before
 * anything else is read; that is Unicorn's. */
REPLACES void helper_xrstor_x86_64(void *env, uint64_t address, uint64_t features)
{
    uint64_t asked = may_begin(env, address) ? components_of(env, features) : 0, loaded = 0;

    need_fpu(env, HOST);
    if (may_begin(env, address)) {
        touch(env, address + HEADER_AT, 24, 0, HOST);
        loaded = real_cpu_ldq_data_ra(env, address + HEADER_AT, HOST);
        if (loaded & ~components_of(env, UINT64_MAX) || real_cpu_ldq_data_ra(env, address + XCOMP_AT, HOST) ||
            real_cpu_ldq_data_ra(env, address + XCOMP_AT + 8, HOST))
            asked = 0;
    }
    loaded &= asked;
    touch_components(env, address, loaded, (asked & (SSE_STATE | AVX_STATE)) != 0, 0, HOST);
    if (asked & (SSE_STATE | AVX_STATE))
        refuse_reserved(env, real_cpu_ldl_data_ra(env, address + MXCSR_AT, HOST), HOST);
    prepare(env, HOST);
    real_helper_xrstor(env, address, features);
    if (loaded & X87_STATE)
        load_pointers(env, address, HOST);
    else if (asked & X87_STATE)
        AT(uint16_t, env, at.env_fpop) = 0; /* of the initial state the rest is Unicorn's */
    prepared(env);
    keep_control(env);
    find_pending(env);
}
