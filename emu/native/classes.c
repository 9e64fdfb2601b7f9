/* Classes of the segment caches: for each register, which accesses can never break it (SDM vol. 3A, 5.3 to 5.5), and whether
 * CR0.AM allows alignment checks. The class is part of what a block is translated for, as five bits of hflags that QEMU
 * leaves free, so that blocks of another class are never entered. A change of the caches reclassifies at the next block
 * (`look` of count.c).
 */
#include "record.h"

static uint32_t data_class(struct segment c)
{
    if (!(c.flags & SEG_PRESENT))
        return DATA_CHECK;
    if (c.flags & SEG_CODE)
        return c.flags & SEG_WRITABLE && c.limit == FLAT ? DATA_READ : DATA_CHECK;
    if (c.flags & SEG_EXPAND_DOWN)
        return DATA_CHECK;
    if (!(c.flags & SEG_WRITABLE))
        return c.limit == FLAT ? DATA_READ : DATA_CHECK;
    return c.limit == FLAT ? DATA_FLAT : c.limit >= 0xffff ? DATA_64K : DATA_CHECK;
}

static uint32_t signature(const engine *e)
{
    uint32_t found = SIGNED_ALL;
    int real = real_mode(e->env);

    if (!e->checked)
        return ALL_FLAT;
    if (AT(uint64_t, e->env, at.env_cr) & CR0_AM)
        found |= SIGNED_AM;
    if (AT(uint32_t, e->env, at.env_hflags) & HF_CS64)
        return found | ALL_FLAT;
    for (int i = 0; i < 6; i++) {
        struct segment c = *segment_of(e->env, i);

        if (i == CS) {
            if (real)
                c.flags = SEG_PRESENT | SEG_WRITABLE;
            found |= (c.limit == FLAT ? CODE_FLAT : c.limit >= 0xffff ? CODE_64K : CODE_CHECK) << CODE_AT;
        }
        found |= data_class(c) << 2 * i;
    }
    return found;
}

/* Class 0 checks nothing. When the numbers run out all translations go, and numbering begins anew. */
static uint32_t class_of(engine *e, uint32_t sign)
{
    if (sign == ALL_FLAT)
        return 0;
    for (uint32_t i = 1; i < e->classes; i++)
        if (e->signatures[i] == sign)
            return i;
    if (e->classes == CLASSES) {
        real_tb_flush(e->cpu);
        forget_translations(e);
        e->classes = 1;
    }
    e->signatures[e->classes] = sign;
    return e->classes++;
}

/* True when the caches have left the class by which blocks are looked up: from now on another one is. */
int reclassify(engine *e)
{
    uint32_t *hflags = &AT(uint32_t, e->env, at.env_hflags);
    uint64_t flushes = e->flushes;
    uint32_t class = class_of(e, signature(e));

    if (class == *hflags >> CLASS_SHIFT && flushes == e->flushes)
        return 0;
    *hflags = (*hflags & ~(UINT32_MAX << CLASS_SHIFT)) | class << CLASS_SHIFT;
    return 1;
}

/* True when no registers and no cache of the class make this access a violation. */
int never_breaks(const struct reference *ref, uint32_t sign)
{
    switch (sign >> 2 * ref->segment & 3) {
    case DATA_FLAT:
        return 1;
    case DATA_READ:
        return !(ref->kind & WRITES);
    case DATA_64K:
        if (ref->base == NONE && ref->index == NONE && ref->bits == NONE && !(ref->kind & XLAT))
            return (ref->displacement & ref->mask) + ref->size <= 0x10000 && (ref->displacement & ref->mask) <= 0xffff;
        return ref->mask == 0xffff && ref->size == 1;
    default:
        return 0;
    }
}

#define IGNORES_66 (1u << 31)

/* `enabled`: segments are checked. `denied`: bits of emu/x86/vectors.py, whose instructions are undefined, and its
 * IGNORES_66. */
API void v2e_fast_checks(engine *e, int enabled, uint32_t denied)
{
    e->checked = enabled;
    e->denied = denied & ~IGNORES_66;
    e->ignores_66 = (denied & IGNORES_66) != 0;
    e->signatures[0] = ALL_FLAT;
    e->control->leave |= LEAVE_BLOCK;
}
