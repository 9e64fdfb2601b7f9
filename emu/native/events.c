/* Stops that are no breakpoints: on classes of instructions, on physical addresses, in ranges of linear ones, behind
 * changes of mode and task.
 *
 * Nothing of this is asked while a block runs. An instruction of a class that is stopped at, or at a physical address
 * that is, gets its block as one under a breakpoint does (translate.c); modes and tasks change in the ways that have the
 * next block looked at anyway (count.c). emu/x86/classes.py is the same decoder in Python. */
#include "checks.h"
#include "segments.h"

enum {
    IRET = 1 << 0,
    LGDT = 1 << 1,
    LIDT = 1 << 2,
    LLDT = 1 << 3,
    LTR = 1 << 4,
    RDMSR = 1 << 5,
    WRMSR = 1 << 6,
    CONTROL = 1 << 7,
    MAGIC = 1 << 8,
    SEGMENT_ES = 1 << 9,
    SEGMENT_CS = 1 << 10,
    SEGMENT_SS = 1 << 11,
    SEGMENT_DS = 1 << 12,
    SEGMENT_FS = 1 << 13,
    SEGMENT_GS = 1 << 14,
    HLT = 1 << 15,
    CPUID = 1 << 16,
    READ_CR3 = 1 << 17,
    READ_CR = 1 << 18,
    DEBUG = 1 << 19,
    CACHE = 1 << 20,
    INVLPG = 1 << 21,
    RDPMC = 1 << 22
};
#define REX_R 4

static uint32_t behind_0f(const uint8_t *op, int length, uint8_t rex)
{
    uint32_t reg;

    switch (op[0]) {
    case 0x05: case 0x07: case 0x34: case 0x35:
        return SEGMENT_CS;
    case 0x06:
        return CONTROL;
    case 0x08: case 0x09:
        return CACHE;
    case 0x30:
        return WRMSR;
    case 0x32:
        return RDMSR;
    case 0x33:
        return RDPMC;
    case 0xa2:
        return CPUID;
    case 0xa1:
        return SEGMENT_FS;
    case 0xa9:
        return SEGMENT_GS;
    }
    if (length < 2)
        return 0;
    reg = op[1] >> 3 & 7;
    switch (op[0]) {
    case 0x00:
        return reg == 2 ? LLDT : reg == 3 ? LTR : 0;
    case 0x01:
        if (reg == 6)
            return CONTROL;
        return op[1] >= 0xc0 ? 0 : reg == 2 ? LGDT : reg == 3 ? LIDT : reg == 7 ? INVLPG : 0;
    case 0x20: /* from CR3 or CR8, or from another */
        return (rex & REX_R ? reg == 0 : reg == 3) ? READ_CR3 : READ_CR;
    case 0x21: case 0x23:
        return DEBUG;
    case 0x22:
        return CONTROL;
    case 0xb2:
        return SEGMENT_SS;
    case 0xb4:
        return SEGMENT_FS;
    case 0xb5:
        return SEGMENT_GS;
    }
    return 0;
}

/* The classes of the instruction that begins `code`, in code of `bits` bits. */
API uint32_t v2e_fast_class_of(const uint8_t *code, int length, int bits)
{
    uint8_t rex = 0;
    int wide = bits != 16, at = 0; /* operands */
    uint32_t reg;

    for (;; at++) {
        if (at >= length)
            return 0;
        switch (code[at]) {
        case 0x66:
            wide = bits == 16;
            rex = 0;
            continue;
        case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x67: case 0xf0: case 0xf2: case 0xf3:
            rex = 0;
            continue;
        }
        if (bits != 64 || (code[at] & 0xf0) != 0x40)
            break;
        rex = code[at];
    }
    code += at;
    length -= at;
    switch (code[0]) {
    case 0x9a: case 0xea: case 0xca: case 0xcb: case 0xcc: case 0xcd: case 0xce: case 0xf1:
        return SEGMENT_CS;
    case 0xcf:
        return SEGMENT_CS | IRET;
    case 0xf4:
        return HLT;
    case 0x07:
        return bits == 64 ? 0 : SEGMENT_ES;
    case 0x17:
        return bits == 64 ? 0 : SEGMENT_SS;
    case 0x1f:
        return bits == 64 ? 0 : SEGMENT_DS;
    }
    if (length < 2)
        return 0;
    reg = code[1] >> 3 & 7;
    switch (code[0]) {
    case 0x0f:
        return behind_0f(code + 1, length - 1, rex);
    case 0x8e:
        return reg > 5 || reg == 1 ? 0 : (uint32_t)SEGMENT_ES << reg;
    case 0xc4: case 0xc5:
        return bits == 64 || code[1] >= 0xc0 ? 0 : code[0] == 0xc4 ? SEGMENT_ES : SEGMENT_DS;
    case 0xff:
        return (reg == 3 || reg == 5) && code[1] < 0xc0 ? SEGMENT_CS : 0;
    case 0x87:
        return code[1] == 0xdb && !wide && !(rex & 0xd) ? MAGIC : 0;
    }
    return 0;
}

/* Where in RAM the byte of `block` at linear `pc` is; EMPTY where it is not in RAM. */
static uint64_t place_of(const tb *block, uint64_t pc)
{
    uint64_t offset = block->pc % PAGE + (pc - block->pc);
    uint64_t page = offset < PAGE ? block->page_addr[0] : block->page_addr[1];

    return page == EMPTY ? EMPTY : page + offset % PAGE;
}

/* The bytes of `block` from linear `pc` on, as many as an instruction may have; how many they are. */
int code_at(engine *e, const tb *block, uint64_t pc, uint8_t *code)
{
    int length = 0;

    for (uint64_t end = block->pc + block->size; length < LONGEST && pc + (uint64_t)length < end; length++) {
        uint64_t place = place_of(block, pc + (uint64_t)length);

        if (place == EMPTY)
            break;
        code[length] =
            *(const uint8_t *)((uint64_t)real_qemu_map_ram_ptr(e->uc, NULL, place & ~(PAGE - 1)) + place % PAGE);
    }
    return length;
}

/* The same of the instruction at whose breakpoint the last run ended. */
API int v2e_fast_stopped_code(engine *e, uint8_t code[LONGEST])
{
    return e->stopped ? code_at(e, e->stopped, e->stopped->pc, code) : 0;
}

/* True when a stop is at the instruction of `block` at linear `pc`, its address apart. */
int is_event(engine *e, const tb *block, uint64_t pc)
{
    const struct control *c = e->control;
    uint8_t code[LONGEST];
    int length;

    if (c->physical_count) {
        const uint64_t *physical = (const uint64_t *)c->physical;
        uint64_t place = place_of(block, pc);

        for (uint32_t i = 0; i < c->physical_count; i++)
            if (physical[i] == place)
                return 1;
    }
    for (uint32_t i = 0; i < c->range_count; i++) {
        const uint64_t *range = (const uint64_t *)c->ranges + 2 * i;

        if (pc >= range[0] && pc <= range[1])
            return 1;
    }
    if (!c->classes)
        return 0;
    length = code_at(e, block, pc, code);
    return !!(v2e_fast_class_of(code, length, block->flags & HF_CS64 ? 64 : block->flags & HF_CS32 ? 32 : 16) &
              c->classes);
}

/* Of hflags and EFLAGS what makes the mode. */
static uint32_t mode_bits(const engine *e)
{
    return (AT(uint32_t, e->env, at.env_hflags) & (HF_PE | HF_LMA | HF_CS64 | HF_CS32)) |
           ((uint32_t)AT(uint64_t, e->env, at.env_eflags) & EFLAGS_VM);
}

static uint64_t task_of(const engine *e)
{
    const struct segment *tr = &AT(struct segment, e->env, at.env_segs) + TR;

    return tr->base << 16 | (tr->selector & 0xffff);
}

/* LTR has loaded the register that a task switch would. */
void task_register_loaded(void *env)
{
    engine *e = engine_of_cpu((uint8_t *)env - at.cpu_env);

    if (e)
        e->control->seen_task = task_of(e);
}

/* True when the mode or the task, as far as they are watched, has changed since the run began. */
int mode_or_task_changed(const engine *e)
{
    const struct control *c = e->control;

    return (c->changes & CHANGE_MODE && c->seen_mode != mode_bits(e)) ||
           (c->changes & CHANGE_TASK && c->seen_task != task_of(e));
}
