/* x87: what is loaded from memory and stored there (SDM vol. 1, 8.3.3; vol. 2A, FLD, FST, FIST, FISTTP, FBLD, FBSTP).
 * */
#include "x87.h"

#define BCD 10 /* bytes of a packed integer, and of an extended number */

/* Push what came of a load. On a full stack it is the indefinite value. A denormal is pushed even where that is not
 * masked, unlike vol. 1, 8.5.2 has it ("TOP and the source operands remain unchanged"): CPUs do it, and so does Bochs.
 * */
static void push(void *env, uint32_t status, const void *value, uint64_t host)
{
    int full = !is_empty(env, -1);

    if (unlikely(full)) {
        stack_fault(env, X87_C1, host);
    } else if (unlikely(unmasked(env, status) & X87_IE)) {
        refuse(env, status, host);
        return;
    } else {
        take_status(env, status & ~X87_C1);
    }
    turn(env, -1);
    *tag(env, 0) = 0;
    if (full)
        put_indefinite(st(env, 0));
    else
        put(st(env, 0), value);
}

/* A signalling NaN and a denormal are found when the number is made an extended one (vol. 1, 8.5.1.2 and 8.5.2). */
#define LOADS(name, type, instruction)                                                                                 \
    REPLACES void helper_##name##_ST0_x86_64(void *env, type value)                                                    \
    {                                                                                                                  \
        long double result;                                                                                            \
        uint16_t status;                                                                                               \
                                                                                                                       \
        wait_for(env, HOST);                                                                                           \
        OPERATE(env, status, "fldz", instruction " %[v]", "fstpt %[r]\n\tfstp %%st(0)", ALSO([r] "=m"(result)),        \
                ALSO([v] "m"(value)));                                                                                 \
        push(env, status, &result, HOST);                                                                              \
    }
LOADS(flds, uint32_t, "flds")
LOADS(fldl, uint64_t, "fldl")
LOADS(fildl, int32_t, "fildl")
LOADS(fildll, int64_t, "fildll")

/* An extended number is taken as it is. */
REPLACES void helper_fldt_ST0_x86_64(void *env, uint64_t address)
{
    uint8_t value[BCD];
    uint64_t low;
    uint16_t high;

    wait_for(env, HOST);
    low = real_cpu_ldq_data_ra(env, address, HOST);
    high = (uint16_t)real_cpu_lduw_data_ra(env, address + sizeof low, HOST);
    memcpy(value, &low, sizeof low);
    memcpy(value + sizeof low, &high, sizeof high);
    push(env, 0, value, HOST);
}

REPLACES void helper_fbld_ST0_x86_64(void *env, uint64_t address)
{
    uint8_t digits[BCD];
    long double value;
    uint64_t low;
    uint16_t high, status;

    wait_for(env, HOST);
    low = real_cpu_ldq_data_ra(env, address, HOST);
    high = (uint16_t)real_cpu_lduw_data_ra(env, address + sizeof low, HOST);
    memcpy(digits, &low, sizeof low);
    memcpy(digits + sizeof low, &high, sizeof high);
    OPERATE(env, status, "", "fbld %[d]", "fstpt %[v]", ALSO([v] "=m"(value)), ALSO([d] "m"(digits)));
    push(env, status, &value, HOST);
}

/* True when ST(0) is empty; then the indefinite value is stored, where that is masked. */
static int stores_nothing(void *env, uint64_t host)
{
    wait_for(env, host);
    if (likely(!is_empty(env, 0)))
        return 0;
    stack_fault(env, 0, host);
    return 1;
}

/* Flags of a store before it is made: nothing is stored where one but PE is not masked. */
static void take_store(void *env, uint32_t status, uint64_t host)
{
    if (unlikely(unmasked(env, status) & (X87_BEFORE | X87_RANGE)))
        refuse(env, status, host);
    else
        take_status(env, status);
}

__thread uint16_t status_before_store;

/* `after` takes ST(0) off where `instruction` does not. The value goes to memory behind this function; a page fault there
 * takes its flags back (paging.c). */
#define STORES(name, result, type, instruction, after, indefinite)                                                     \
    REPLACES result helper_##name##_ST0_x86_64(void *env)                                                              \
    {                                                                                                                  \
        type value = (type)(indefinite);                                                                               \
        uint16_t status;                                                                                               \
                                                                                                                       \
        status_before_store = AT(uint16_t, env, at.env_fpus);                                                          \
        if (stores_nothing(env, HOST))                                                                                 \
            return value;                                                                                              \
        OPERATE(env, status, "fldt %[a]", instruction " %[v]", after, ALSO([v] "+m"(value)),                           \
                ALSO([a] "m"(*st(env, 0))));                                                                           \
        take_store(env, status, HOST);                                                                                 \
        return value;                                                                                                  \
    }
STORES(fsts, uint32_t, uint32_t, "fsts", "fstp %%st(0)", 0xffc00000u)
STORES(fstl, uint64_t, uint64_t, "fstl", "fstp %%st(0)", 0xfff8000000000000u)
STORES(fistl, int32_t, int32_t, "fistl", "fstp %%st(0)", INT32_MIN)
STORES(fistll, int64_t, int64_t, "fistpll", "nop", INT64_MIN)
STORES(fisttl, int32_t, int32_t, "fisttpl", "nop", INT32_MIN)
STORES(fisttll, int64_t, int64_t, "fisttpll", "nop", INT64_MIN)

/* 16 bits, which Unicorn takes as 32. */
STORES(fist, int32_t, int16_t, "fists", "fstp %%st(0)", INT16_MIN)
STORES(fistt, int32_t, int16_t, "fisttps", "nop", INT16_MIN)

/* FSTP of an extended number. */
REPLACES void helper_fstt_ST0_x86_64(void *env, uint64_t address)
{
    uint8_t value[BCD];
    uint64_t low;
    uint16_t high;

    wait_for(env, HOST);
    touch(env, address, BCD, 1, HOST);
    if (stores_nothing(env, HOST))
        put_indefinite(value);
    else
        put(value, st(env, 0));
    memcpy(&low, value, sizeof low);
    memcpy(&high, value + sizeof low, sizeof high);
    real_cpu_stq_data_ra(env, address, low, HOST);
    real_cpu_stw_data_ra(env, address + sizeof low, high, HOST);
    if (!is_empty(env, 0))
        AT(uint16_t, env, at.env_fpus) &= (uint16_t)~X87_C1;
}

/* Of what has no 18 digits the packed BCD indefinite, FFFFC000000000000000h (vol. 1, 4.7). */
REPLACES void helper_fbst_ST0_x86_64(void *env, uint64_t address)
{
    uint8_t digits[BCD] = {0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff};
    uint16_t status = 0;
    int empty;

    wait_for(env, HOST);
    touch(env, address, BCD, 1, HOST);
    empty = stores_nothing(env, HOST);
    if (!empty) {
        OPERATE(env, status, "fldt %[a]", "fbstp %[d]", "nop", ALSO([d] "+m"(digits)), ALSO([a] "m"(*st(env, 0))));
        if (unlikely(unmasked(env, status) & X87_BEFORE))
            refuse(env, status, HOST);
    }
    for (int i = BCD - 1; i >= 0; i--) /* the sign first, as Unicorn does */
        real_cpu_stb_data_ra(env, address + (uint64_t)i, digits[i], HOST);
    if (!empty)
        take_status(env, status);
}
