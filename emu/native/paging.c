/* Page faults as the SDM has them: with the access that the instruction is to make, and before any effect of it
 * (vol. 3A, 4.7 and 6.5). Unicorn takes an operand apart into loads and stores, and finds the fault at the one that
 * meets it: where the operand lies on two pages the first part is stored by then, and of an operand that is read and
 * written the fault is a read's.
 *
 * What is written in pieces is touched as a whole before it: here for what is done by a function of Unicorn's, whichever
 * run loop calls it; by checks.c, as it is translated, for the rest. What is read and written is looked at when it
 * faults, which costs nothing where it does not.
 */
#include "checks.h"
#include "segments.h"
#include "x87.h"

#define MMU_USER 1
#define MMU_KERNEL 2
#define MMU_KERNEL_SMAP 0
enum { LOAD, STORE };
/* Bits of #PF's error code (vol. 3A, 4.7). */
#define PF_WRITE 2
#define PF_FETCH 16

/* Which of Unicorn's TLBs the program's own accesses go through: cpu_mmu_index of target/i386/cpu.h. */
int mmu_index(const void *env)
{
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);

    if ((hflags & HF_CPL) == 3)
        return MMU_USER;
    return !(hflags & HF_SMAP) || AT(uint64_t, env, at.env_eflags) & EFLAGS_AC ? MMU_KERNEL : MMU_KERNEL_SMAP;
}

/* True when the TLB that code is fetched by leads to all of `length` bytes at `linear`, which are put to `to`: those of an
 * instruction that has just been executed, but for one on two pages, which its caller finds by the page tables. */
API int v2e_fast_code_seen(void *env, uint64_t linear, uint32_t length, uint8_t *to)
{
    const tlb_fast *tlb = &AT(tlb_fast, env, at.env_tlb) + mmu_index(env);
    const tlb_entry *t = tlb->table + (linear / PAGE & tlb->mask / sizeof(tlb_entry));

    if (t->code != (linear & ~(PAGE - 1)) || linear % PAGE + length > PAGE)
        return 0;
    memcpy(to, (const uint8_t *)(linear + t->addend), length);
    return 1;
}

/* Raise the page fault that an access of the program to `size` bytes at `linear` meets, and nothing else: the first byte
 * of the first page that has one is what CR2 gets. `host` is the return address into the block, or anything else where
 * the CPU's state is that of the instruction already. */
void touch(void *env, uint64_t linear, uint32_t size, int write, uint64_t host)
{
    uint64_t width = AT(uint32_t, env, at.env_hflags) & HF_CS64 ? UINT64_MAX : UINT32_MAX;
    uint64_t here = linear & width, last = (linear + size - 1) & width;
    int index = mmu_index(env);

    if (!paging(env))
        return;
    real_probe_access(env, here, 0, write ? STORE : LOAD, index, host);
    while ((here ^ last) & ~(PAGE - 1)) {
        here = ((here | (PAGE - 1)) + 1) & width;
        real_probe_access(env, here, 0, write ? STORE : LOAD, index, host);
    }
}

/* The linear address of an operand of the instruction `where` is about, by the registers as they are. */
uint64_t linear_address(void *env, const struct reference *ref, struct addressing where)
{
    const uint64_t *regs = registers(env);
    uint64_t value;

    if (where.bits != 64)
        return (uint32_t)(segment_of(env, ref->segment)->base + effective(env, ref));
    value = (uint64_t)(int64_t)(int32_t)ref->displacement + where.next;
    if (ref->base != NONE)
        value += regs[ref->base];
    if (ref->index != NONE)
        value += regs[ref->index] * ref->scale;
    if (ref->bits != NONE) { /* SDM vol. 2A, "BT" */
        int64_t bit = (int64_t)regs[ref->bits];

        value += (uint64_t)(ref->size == 8   ? (bit >> 6) * 8
                            : ref->size == 4 ? ((int32_t)bit >> 5) * 4
                                             : ((int16_t)bit >> 4) * 2);
    }
    if (where.narrow)
        value = (uint32_t)value;
    return ref->segment < FS ? value : value + segment_of(env, ref->segment)->base;
}

/* ---- Operands that are read and written */

/* The bytes from linear `pc` on of the instruction that has called from `host`, at most `LONGEST`; how many. The fast
 * loop knows where its translation was made from. The portable one reads them again. */
int bytes_at(void *env, uint64_t pc, uint64_t host, uint8_t *bytes)
{
    const engine *e = engine_of_env(env);
    const tb *block = e ? real_tcg_tb_lookup(e->tcg, host) : NULL;
    int count = 0;

    if (block && block->page_addr[0] != EMPTY) {
        uint64_t offset = block->pc % PAGE + (pc - block->pc);

        for (; count < LONGEST && offset < block->pc % PAGE + block->size; count++, offset++) {
            uint64_t page = offset < PAGE ? block->page_addr[0] : block->page_addr[1];

            bytes[count] = *((const uint8_t *)real_qemu_map_ram_ptr(e->uc, NULL, page & ~(PAGE - 1)) + offset % PAGE);
        }
        return count;
    }
    /* Only its own page is sure to be there; an instruction that goes on behind it is left as it is. */
    for (; count < LONGEST && (!count || (pc + (uint64_t)count) % PAGE); count++)
        bytes[count] = (uint8_t)real_cpu_ldub_code(env, pc + (uint64_t)count);
    return count;
}

/* The instruction that called from `host`, to which EIP is moved back; NULL where none is known. */
static const struct instruction *instruction_at(void *env, uint64_t host, struct addressing *where)
{
    uint32_t hflags = AT(uint32_t, env, at.env_hflags);
    int bits = hflags & HF_CS64 ? 64 : hflags & HF_CS32 ? 32 : 16;
    static __thread struct instruction in;
    uint8_t bytes[LONGEST];
    uint64_t pc;

    if (!real_cpu_restore_state((uint8_t *)env - at.cpu_env, host, 0))
        return NULL;
    pc = AT(uint64_t, env, at.env_eip);
    if (bits != 64)
        pc = (uint32_t)(segment_of(env, CS)->base + pc);
    if (!decode(bytes, bytes_at(env, pc, host, bytes), bits, hflags & HF_SS32 ? 32 : 16, &in))
        return NULL;
    *where = addressing_of(&in, bits, pc);
    return &in;
}

/* An exception of SSE leaves the x87 as it was before MMX was entered (vol. 3A, 6.5). */
void leave_mmx_for_exception(void *env, uint64_t host)
{
    struct addressing where;
    const struct instruction *in = instruction_at(env, host, &where);

    if (in && is_mmx(in))
        leave_mmx(env);
}

/* CR2 before the page fault that is about to be raised. */
static __thread uint64_t cr2_before;

REPLACES int x86_cpu_tlb_fill_x86_64(void *cpu, uint64_t linear, int size, int access, int index, int probe, uint64_t host)
{
    cr2_before = (&AT(uint64_t, (uint8_t *)cpu + at.cpu_env, at.env_cr))[2];
    return real_x86_cpu_tlb_fill(cpu, linear, size, access, index, probe, host);
}

/* #MF of a pending exception of the x87 instead of the fault, which then has not been found. */
static void wait_before_fault(void *env, uint64_t host)
{
    uint64_t *cr2 = &(&AT(uint64_t, env, at.env_cr))[2], found = *cr2;

    *cr2 = cr2_before;
    wait_for(env, host);
    *cr2 = found;
}

/* #GP(0) instead of the page fault of an operand whose first byte has a canonical address and whose last has none: that
 * is found before its pages are (vol. 3A, table 6-2; vol. 1, 3.3.7.1). Unicorn meets the first page first. Where it is the
 * stack's, #SS(0) is made of it like of others (emu/unicorn_faults.py). */
static void refuse_straddling(void *env, const struct instruction *in, struct addressing where, uint64_t host)
{
    uint64_t *cr2 = &(&AT(uint64_t, env, at.env_cr))[2];

    for (int i = 0; i < in->count; i++) {
        uint64_t first = linear_address(env, &in->references[i], where), last = first + in->references[i].size - 1;

        if (likely(canonical(last)) || !canonical(first) || *cr2 - first > last - first)
            continue;
        *cr2 = cr2_before;
        real_raise_exception_err_ra(env, EXCP_GP, 0, host);
    }
}

/* An access of the instruction that called from `host`, to its operand, is about to raise #PF, or #GP(0) as its address is
 * not canonical. It leaves the state before the instruction (vol. 3A, 6.5). An exception of the x87 for which it waits comes
 * first. If the operand is read and written, a page fault is a write's, and of the first page that refuses one (vol. 3A,
 * 4.7, W/R; vol. 2: these instructions always write). Returns where the fault is as Unicorn has it. */
static void fault_of_operand(void *env, int vector, int code, uint64_t host)
{
    struct addressing where;
    const struct instruction *in = instruction_at(env, host, &where);
    int is_load = vector == EXCP_PF && !(code & PF_WRITE);

    if (!in || !in->count)
        return;
    if (is_mmx(in))
        leave_mmx(env);
    if (!is_load && stores_behind_flags(in))
        AT(uint16_t, env, at.env_fpus) = status_before_store;
    if (waits_for_x87(in))
        wait_before_fault(env, host);
    if (vector == EXCP_PF && where.bits == 64)
        refuse_straddling(env, in, where, host);
    if (is_load && in->references[0].kind == (READS | WRITES))
        touch(env, linear_address(env, in->references, where), in->references[0].size, STORE, host);
}

REPLACES void raise_exception_err_ra_x86_64(void *env, int vector, int code, uint64_t host)
{
    if (vector == EXCP_PF && host && !(code & PF_FETCH))
        fault_of_operand(env, vector, code, host);
    else if (vector == EXCP_GP && host && !code && AT(uint32_t, env, at.env_hflags) & HF_CS64)
        fault_of_operand(env, vector, code, host);
    show_all_flags();
    real_raise_exception_err_ra(env, vector, code, host);
}

/* ---- Operands that Unicorn's functions load or store in pieces; those of the x87 are in x87_memory.c and x87_flags.c. The
 * originals find their instruction by their return address, so they are jumped to. */

/* MASKMOVQ and MASKMOVDQU: the bytes that `mask` selects. With none there is no fault (SDM vol. 2A, MASKMOVDQU, leaves it
 * open). */
static void touch_selected(void *env, const uint8_t *mask, uint32_t count, uint64_t address, uint64_t host)
{
    for (uint32_t i = 0, touched = 0; i < count; i++) {
        uint64_t here = address + i;

        if (!(mask[i] & 0x80) || (touched && here % PAGE))
            continue;
        touch(env, here, 1, STORE, host);
        touched = 1;
    }
}

#define MASKED(name, count)                                                                                            \
    REPLACES void helper_##name##_x86_64(void *env, void *data, void *mask, uint64_t address)                          \
    {                                                                                                                  \
        touch_selected(env, mask, count, address, HOST);                                                               \
        real_helper_##name(env, data, mask, address);                                                                  \
    }
MASKED(maskmov_mmx, 8)
MASKED(maskmov_xmm, 16)

/* ---- Operands of translated code in pieces: checks.c has what this says of an instruction touched before it. */

int touched_first(const struct instruction *in)
{
    if (in->rm != NONE || !in->count)
        return 0;
    switch (in->opcode) {
    case 0xc0: case 0xc1: case 0xd0 ... 0xd3: /* RCL, RCR, which set flags before they store */
        return in->reg == 2 || in->reg == 3 ? TOUCH : 0;
    case 0x60: case 0x61: case 0xc8: /* PUSHA, POPA, ENTER, whose last touch is that of the new top (vol. 2A, ENTER) */
        return TOUCH;
    case 0x0f01: /* SGDT, SIDT */
        return in->reg < 2 ? TOUCH : 0;
    case 0x0fae: /* CLFLUSH, which is checked as a load of the byte (vol. 2A) */
        return in->reg == 7 ? TOUCH : 0;
    case 0x0f11: case 0x0f7f: /* MOVUPS, MOVUPD, MOVDQU: two halves */
        return in->references[0].size == 16 ? TOUCH_ON_TWO_PAGES : 0;
    default:
        return 0;
    }
}
