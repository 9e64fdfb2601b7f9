/* Unicorn's CPU to and from `struct packed`: what emu/unicorn_state.py does field by field, for a state that is moved to
 * another CPU and back many times a second. The same rules hold, and the tests compare the two. */
#include "fast.h"
#include "packed.h"
#include "segments.h"

#include <string.h>

#define RFLAGS_KEPT 0x3f7fd7u /* every defined flag */
#define RFLAGS_ONE 2u         /* the bit that is always 1 */
#define ARITHMETIC 0x8d5u     /* OF SF ZF AF PF CF */
#define RFLAGS_DF 0x400u
#define CC_OP_EFLAGS 1u
#define CR4_SMAP 0x200000u
#define EFER_SCE 1u
#define EFER_LMA 0x400u
#define FSW_TOP 0x3800u
#define TOP_SHIFT 11
#define CS_BIG 0x400000u /* D/B in the second half of a descriptor */
#define FOP_BITS 0x7ffu /* of an opcode (SDM vol. 1, 8.1.9) */
#define TSS_BUSY 2u
#define SYSTEM_TYPE 0x1fu /* type and S */
#define CODE_OR_DATA 0x90u /* present, and no system segment */
#define ACCESSED 1u
#define CPUID_SSE 0x2000000u
#define HF_MP_EM_TS 0xe00u /* bits 1 to 3 of CR0 */
#define HF_MP_SHIFT 8
#define HF2_NMI 4u
#define HF2_VINTR 8u
#define INTERRUPT_NMI 0x200u
#define NO_EXCEPTION (-1)
#define A20_BIT 0x100000u
#define DR7_FIXED 0x400u

/* Where the rest of the state is in env; filled in by Python (emu/unicorn_pack.py), which has it proved. */
struct state_layout {
    uint32_t hflags2, a20_mask, efer, v_tpr, features, df, cc_src, cc_dst, cc_src2;
    uint32_t fpstt, fpus, fpuc, fptags, fpregs, fpop, fpcs, fpds, fpip, fpdp, mxcsr, xmm;
    uint32_t msrs[PACKED_MSRS - 1]; /* in the order of `struct packed`, but for IA32_SYSENTER_CS, which Unicorn is not shown */
    uint32_t exception_is_int, pat, xcr0, xmm_size;
};
static struct state_layout in;

/* One engine's side of a move, shared with Python (emu/unicorn_pack.py), whose calls so need one argument. What Unicorn
 * is not shown or forgets is Python's to fill in: `sysenter_cs` to `halted`, and `smm`. */
struct packing {
    engine *engine;
    struct packed *packed;
    uint64_t sysenter_cs, tsc_adjust;
    uint32_t sce, halted;
    uint32_t parts; /* PACKED_*, of the state to be gone on from */
    uint32_t smm;   /* the CPU is in system management mode, of which `struct packed` knows nothing */
};

API uint64_t v2e_pack_layout(const struct state_layout *layout)
{
    in = *layout;
    return (uint64_t)sizeof(struct state_layout) << 48 | (uint64_t)sizeof(struct packing) << 32 | sizeof(struct flat);
}

static uint64_t *msr(uint8_t *env, int index)
{
    return &AT(uint64_t, env, in.msrs[index - 1]);
}

static void pack_segment(struct packed_segment *to, const struct segment *from)
{
    uint32_t access = from->flags >> 8 & ACCESS_KEPT;

    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->access = access & ACCESS_PRESENT ? access : access | ACCESS_UNUSABLE;
}

/* CS and SS are accessed whatever has loaded them (SDM vol. 3A, 3.4.5.1), which Unicorn forgets at times. */
static void mark_accessed(struct packed_segment *s)
{
    if ((s->access & CODE_OR_DATA) == CODE_OR_DATA)
        s->access |= ACCESSED;
}

static void unpack_segment(struct segment *to, const struct packed_segment *from)
{
    uint32_t access = from->access & ACCESS_KEPT;

    if (from->access & ACCESS_UNUSABLE)
        access &= ~ACCESS_PRESENT;
    to->base = from->base;
    to->limit = from->limit;
    to->selector = from->selector;
    to->flags = access << 8;
}

static void pack_fpu(struct packed *p, uint8_t *env)
{
    uint32_t top = AT(uint32_t, env, in.fpstt) & 7, tags = 0;

    /* what is not written here is reserved, and 0 from the beginning */
    for (int i = 0; i < 8; i++)
        tags |= (uint32_t)!AT(uint8_t, env, in.fptags + i) << i;
    AT(uint16_t, p->fx, FX_FCW) = AT(uint16_t, env, in.fpuc);
    AT(uint16_t, p->fx, FX_FSW) = (uint16_t)((AT(uint16_t, env, in.fpus) & ~FSW_TOP) | top << TOP_SHIFT);
    AT(uint16_t, p->fx, FX_FTW) = (uint16_t)tags;
    AT(uint16_t, p->fx, FX_FOP) = AT(uint16_t, env, in.fpop);
    AT(uint64_t, p->fx, FX_FIP) = AT(uint64_t, env, in.fpip);
    AT(uint64_t, p->fx, FX_FDP) = AT(uint64_t, env, in.fpdp);
    AT(uint32_t, p->fx, FX_MXCSR) = AT(uint32_t, env, in.mxcsr);
    for (uint32_t i = 0; i < 8; i++) {
        const uint8_t *st = env + in.fpregs + 16 * ((top + i) & 7);

        AT(uint64_t, p->fx, FX_ST + 16 * i) = AT(uint64_t, st, 0);
        AT(uint64_t, p->fx, FX_ST + 16 * i + 8) = AT(uint16_t, st, 8);
    }
    for (uint32_t i = 0; i < 16; i++)
        memcpy(p->fx + FX_XMM + 16 * i, env + in.xmm + in.xmm_size * i, 16);
    p->fcs = AT(uint16_t, env, in.fpcs);
    p->fds = AT(uint16_t, env, in.fpds);
}

static void unpack_fpu(uint8_t *env, const struct packed *p)
{
    uint32_t fsw = AT(uint16_t, p->fx, FX_FSW), top = fsw >> TOP_SHIFT & 7, tags = p->fx[FX_FTW];

    AT(uint32_t, env, in.fpstt) = top;
    AT(uint16_t, env, in.fpus) = (uint16_t)(fsw & ~FSW_TOP);
    real_helper_fldcw(env, AT(uint16_t, p->fx, FX_FCW)); /* these two tell the arithmetic of rounding and the like */
    real_helper_ldmxcsr(env, AT(uint32_t, p->fx, FX_MXCSR));
    for (int i = 0; i < 8; i++)
        AT(uint8_t, env, in.fptags + i) = !(tags >> i & 1);
    AT(uint16_t, env, in.fpop) = AT(uint16_t, p->fx, FX_FOP);
    AT(uint64_t, env, in.fpip) = AT(uint64_t, p->fx, FX_FIP);
    AT(uint64_t, env, in.fpdp) = AT(uint64_t, p->fx, FX_FDP);
    AT(uint16_t, env, in.fpcs) = p->fcs;
    AT(uint16_t, env, in.fpds) = p->fds;
    for (uint32_t i = 0; i < 8; i++)
        memcpy(env + in.fpregs + 16 * ((top + i) & 7), p->fx + FX_ST + 16 * i, 10);
    for (uint32_t i = 0; i < 16; i++)
        memcpy(env + in.xmm + in.xmm_size * i, p->fx + FX_XMM + 16 * i, 16);
}

/* The whole state but what `struct packed` has no place for. */
static void pack(const struct packing *from, struct packed *p)
{
    uint8_t *env = from->engine->env;
    uint64_t *cr = &AT(uint64_t, env, at.env_cr);
    const struct segment *tables = segment_of(env, GDT);

    memcpy(p->regs, registers(env), sizeof p->regs);
    p->rip = *from->engine->eip;
    p->rflags = AT(uint64_t, env, at.env_eflags) | RFLAGS_ONE;
    for (int i = ES; i <= TR; i++)
        pack_segment(&p->segments[i], segment_of(env, i));
    mark_accessed(&p->segments[CS]);
    mark_accessed(&p->segments[SS]);
    if ((p->segments[TR].access & (SYSTEM_TYPE & ~8u)) == 1 && p->segments[TR].access & ACCESS_PRESENT)
        p->segments[TR].access |= TSS_BUSY; /* a loaded TSS is busy (SDM vol. 2A, LTR) */
    p->gdtr = (struct packed_table){tables[0].base, tables[0].limit};
    p->idtr = (struct packed_table){tables[1].base, tables[1].limit};
    p->cr0 = cr[0];
    p->cr2 = cr[2];
    p->cr3 = cr[3];
    p->cr4 = cr[4];
    p->cr8 = AT(uint8_t, env, in.v_tpr) & 0xf;
    p->efer = AT(uint64_t, env, in.efer) | from->sce;
    memcpy(p->dr, env + at.env_dr, sizeof p->dr);
    p->dr[4] = p->dr[5] = 0;
    p->msrs[0] = from->sysenter_cs;
    for (int i = 1; i < PACKED_MSRS; i++)
        p->msrs[i] = *msr(env, i);
    p->shadow = !!(AT(uint32_t, env, at.env_hflags) & HF_INHIBIT_IRQ);
    p->nmi_blocked = !!(AT(uint32_t, env, in.hflags2) & HF2_NMI);
    p->a20 = (uint8_t)has_a20(from->engine);
    p->tsc_adjust = from->tsc_adjust;
    p->halted = (uint8_t)from->halted;
    pack_fpu(p, env);
}

/* Between two runs: what `pack` says, and INTR is low afterwards. Returns 0, with nothing done, where there is more to the
 * state than that: a delivery that nobody has heard of, an NMI, system management mode, or an XCR0 that is not 1. */
API int v2e_fast_pack(const struct packing *from)
{
    engine *e = from->engine;

    if (from->smm || AT(uint64_t, e->env, in.xcr0) != 1 || e->control->taken ||
        AT(uint32_t, e->cpu, at.cpu_interrupt_request) & INTERRUPT_NMI)
        return 0;
    e->control->masked = e->control->interrupt = 0;
    pack(from, from->packed);
    return 1;
}

/* The tags of the x87 registers in full (SDM vol. 1, 8.1.7): 0 valid, 1 zero, 2 special, 3 empty, of physical register 0
 * in the lowest bits. */
static uint32_t full_tags(const uint8_t *fx)
{
    uint32_t top = AT(uint16_t, fx, FX_FSW) >> TOP_SHIFT & 7, tags = 0;

    for (uint32_t i = 0; i < 8; i++) {
        const uint8_t *st = fx + FX_ST + 16 * ((i - top) & 7);
        uint32_t exponent = AT(uint16_t, st, 8) & 0x7fff, tag;
        uint64_t significand = AT(uint64_t, st, 0);

        if (!(fx[FX_FTW] >> i & 1))
            tag = 3;
        else if (!exponent)
            tag = significand ? 2 : 1;
        else
            tag = exponent == 0x7fff || !(significand >> 63) ? 2 : 0;
        tags |= tag << 2 * i;
    }
    return tags;
}

/* The A20 gate lets address bit 20 through. */
int has_a20(const engine *e)
{
    return !!(AT(uint32_t, e->env, in.a20_mask) & A20_BIT);
}

/* Between two runs: where the CPU is (`CpuState.brief`). */
API void v2e_fast_brief(const struct packing *from, uint64_t to[BRIEF])
{
    uint8_t *env = from->engine->env;
    const struct segment *cs = segment_of(env, CS);
    int wide = !!(AT(uint32_t, env, at.env_hflags) & HF_CS64);

    to[1] = *from->engine->eip;
    to[0] = wide ? to[1] : (cs->base + to[1]) & 0xffffffff;
    to[2] = registers(env)[SP];
    to[3] = registers(env)[SP + 1];
    to[4] = AT(uint64_t, env, at.env_eflags) | RFLAGS_ONE;
    to[5] = cs->selector;
    to[6] = segment_of(env, SS)->selector;
    to[7] = wide ? 64 : cs->flags & CS_BIG ? 32 : 16;
    for (int i = 0; i < 4; i++)
        to[8 + i] = registers(env)[AX + i];
    to[12] = registers(env)[SI];
    to[13] = registers(env)[DI];
    to[14] = AT(uint64_t, env, at.env_cr);
}

/* Between two runs: the state as a debugger looks at it, which changes nothing. */
API void v2e_fast_look(const struct packing *from, struct flat *to)
{
    struct packed *p = &to->cpu;
    const struct packed_segment *cs = &p->segments[CS];
    int wide;

    pack(from, p);
    wide = p->efer & EFER_LMA && cs->access & 0x2000;
    to->linear_pc = wide ? p->rip : (cs->base + p->rip) & 0xffffffff;
    to->pat = AT(uint64_t, from->engine->env, in.pat);
    to->code_bits = wide ? 64 : cs->access & 0x4000 ? 32 : 16;
    to->cpl = !(p->cr0 & CR0_PE) ? 0 : p->rflags & EFLAGS_VM ? 3 : p->segments[SS].access >> 5 & 3;
    to->tags = full_tags(p->fx);
    AT(uint16_t, p->fx, FX_FOP) &= FOP_BITS;
}

/* The bits of hflags that follow from the architectural state. */
static uint32_t derived(const struct packed *p, uint8_t *env)
{
    const struct packed_segment *s = p->segments;
    uint32_t value = p->shadow ? HF_INHIBIT_IRQ : 0, protected = p->cr0 & CR0_PE, v86 = p->rflags & EFLAGS_VM;

    if (protected)
        value |= HF_PE | (v86 ? 3 : s[SS].access >> 5 & 3);
    value |= (uint32_t)p->cr0 << HF_MP_SHIFT & HF_MP_EM_TS;
    /* a CPU without SSE has CR4.OSFXSR for FXSAVE */
    value |= p->cr4 & CR4_OSFXSR && AT(uint64_t, env, in.features) & CPUID_SSE ? HF_OSFXSR : 0;
    value |= p->cr4 & CR4_SMAP ? HF_SMAP : 0;
    if (p->efer & EFER_LMA) {
        value |= HF_LMA;
        if (s[CS].access & 0x2000)
            return value | HF_CS64 | HF_CS32 | HF_SS32;
    }
    value |= (s[CS].access & 0x4000 ? HF_CS32 : 0) | (s[SS].access & 0x4000 ? HF_SS32 : 0);
    if (!protected || v86 || !(s[CS].access & 0x4000) || s[DS].base | s[ES].base | s[SS].base)
        value |= HF_ADDSEG;
    return value;
}

#define DERIVED                                                                                                        \
    (HF_CPL | HF_CS32 | HF_SS32 | HF_ADDSEG | HF_LMA | HF_CS64 | HF_INHIBIT_IRQ | HF_PE | HF_MP_EM_TS | HF_OSFXSR | HF_SMAP)

/* Go on from what is packed; of the FPU, the debug registers and the MSRs only the `parts` that changed. What Unicorn
 * has derived from the state before is derived anew. Its TLB goes where there is paging, as whoever ran meanwhile may have
 * written the tables; without, an address leads where it led. */
API void v2e_fast_unpack(const struct packing *to)
{
    engine *e = to->engine;
    const struct packed *p = to->packed;
    uint8_t *env = e->env;
    uint32_t parts = to->parts;
    uint64_t *cr = &AT(uint64_t, env, at.env_cr), *dr = &AT(uint64_t, env, at.env_dr);
    struct segment *tables = segment_of(env, GDT);
    int32_t *a20_mask = &AT(int32_t, env, in.a20_mask), a20 = p->a20 ? -1 : ~(int32_t)A20_BIT;
    int elsewhere = (cr[0] | p->cr0) & CR0_PG || *a20_mask != a20;
    uint64_t rflags = (p->rflags & RFLAGS_KEPT) | RFLAGS_ONE;
    uint32_t *hflags2 = &AT(uint32_t, env, in.hflags2);

    memcpy(registers(env), p->regs, sizeof p->regs);
    *e->eip = p->rip;
    AT(uint64_t, env, at.env_eflags) = rflags;
    AT(uint64_t, env, in.cc_src) = rflags & ARITHMETIC;
    AT(uint64_t, env, in.cc_dst) = AT(uint64_t, env, in.cc_src2) = 0;
    AT(uint32_t, env, at.env_cc_op) = CC_OP_EFLAGS;
    AT(int32_t, env, in.df) = rflags & RFLAGS_DF ? -1 : 1;
    for (int i = ES; i <= TR; i++)
        unpack_segment(segment_of(env, i), &p->segments[i]);
    if ((p->segments[TR].access & (SYSTEM_TYPE & ~8u)) == 3 && p->segments[TR].access & ACCESS_PRESENT)
        segment_of(env, TR)->flags &= ~(TSS_BUSY << 8); /* Unicorn takes only an available TSS for a loaded one */
    tables[0].base = p->gdtr.base;
    tables[0].limit = (uint32_t)p->gdtr.limit;
    tables[1].base = p->idtr.base;
    tables[1].limit = (uint32_t)p->idtr.limit;
    cr[0] = p->cr0 | CR0_ET;
    cr[2] = p->cr2;
    cr[3] = p->cr3;
    cr[4] = p->cr4;
    AT(uint8_t, env, in.v_tpr) = p->cr8 & 0xf;
    AT(uint64_t, env, in.efer) = p->efer & ~(uint64_t)EFER_SCE;
    if (parts & PACKED_DEBUG) {
        real_cpu_x86_update_dr7(env, DR7_FIXED); /* takes the old breakpoints out before their addresses go */
        memcpy(dr, p->dr, 4 * sizeof *dr);
        dr[6] = p->dr[6];
        real_cpu_x86_update_dr7(env, (uint32_t)p->dr[7]);
    }
    if (parts & PACKED_MSR)
        for (int i = 1; i < PACKED_MSRS; i++)
            *msr(env, i) = p->msrs[i];
    if (parts & PACKED_FPU)
        unpack_fpu(env, p);
    *a20_mask = a20;
    AT(uint32_t, env, at.env_hflags) = (AT(uint32_t, env, at.env_hflags) & ~DERIVED) | derived(p, env);
    *hflags2 = (*hflags2 & ~HF2_NMI) | HF2_VINTR | (p->nmi_blocked ? HF2_NMI : 0);
    AT(int32_t, env, at.env_old_exception) = NO_EXCEPTION;
    AT(int32_t, env, at.env_error_code) = AT(int32_t, env, in.exception_is_int) = 0;
    AT(uint32_t, e->cpu, at.cpu_interrupt_request) = 0;
    if (elsewhere)
        real_tlb_flush(e->cpu);
    e->control->last = e->control->skip = EMPTY;
    e->control->trap = 0;
    e->control->leave = LEAVE_BLOCK;
}

/* Somebody else has written the `count` pieces of this process's memory, (address, bytes) each: drop translations made
 * from them. */
API void v2e_fast_pieces_changed(engine *e, const uint64_t (*pieces)[2], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        v2e_fast_host_changed(e, pieces[i][0], pieces[i][0] + pieces[i][1]);
}
