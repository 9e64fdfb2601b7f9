/* Operands that an instruction has besides that of ModRM, on the stack, of strings and tables, and how many bytes each has:
 * what emu/x86/operands.py says, in C (SDM vol. 2A to 2D, each instruction's own page). */
#include "operands.h"

#include <string.h>

struct reference *append(struct instruction *in)
{
    struct reference *ref = &in->references[in->count++];

    memset(ref, 0, sizeof *ref);
    ref->base = ref->index = ref->bits = NONE;
    ref->scale = 1;
    ref->mask = in->address_mask;
    return ref;
}

/* A reference through a register, with a displacement. */
struct reference *through(struct instruction *in, int segment, uint32_t size, int kind, uint32_t mask, int base,
                          uint32_t displacement)
{
    struct reference *ref = append(in);

    ref->segment = (uint8_t)segment;
    ref->size = (uint16_t)size;
    ref->kind = (uint8_t)kind;
    ref->mask = mask;
    ref->base = (uint8_t)base;
    ref->displacement = displacement;
    return ref;
}

int kind_of(char access)
{
    return (access == 'r' || access == 'm' ? READS : 0) | (access == 'w' || access == 'm' ? WRITES : 0);
}

/* Bytes of an operand by its size letter: emu/x86/operands.py has the key. */
uint32_t size_of(char letter, uint32_t osz, int opsize66, int rep)
{
    switch (letter) {
    case 'b': return 1;
    case 'w': return 2;
    case 'd': return 4;
    case 'q': return 8;
    case 't': return 10;
    case 'o': return 16;
    case 's': return 6;
    case 'x': return 512;
    case 'v': return osz;
    case 'p': return osz + 2;
    case 'a': return 2 * osz;
    case 'e': return osz == 2 ? 14 : 28;
    case 'f': return osz == 2 ? 94 : 108;
    case 'S': return rep == 0xf3 ? 4 : rep == 0xf2 ? 8 : 16;
    default: return opsize66 ? 16 : 8; /* M */
    }
}

/* Of 64-bit code, where `size` is what the tables say of the operand that ModRM names: those that have 8 bytes by REX.W
 * or without, and MOVSXD in ARPL's place. */
uint32_t size_in_64(const struct instruction *in, uint32_t size)
{
    switch (in->opcode) {
    case 0x63: /* MOVSXD */
        return in->operand_size;
    case 0x8f: /* POP */
        return in->stack_size;
    case 0xff: /* near CALL and JMP, PUSH */
        return in->reg == 2 || in->reg == 4 ? 8 : in->reg == 6 ? in->stack_size : size;
    case 0x0f01: /* the base of a table */
        return in->reg < 4 ? 10 : size;
    case 0x0fc7: /* CMPXCHG16B */
        return in->wide ? 16 : size;
    case 0x0f2a: case 0x0f6e: case 0x0f7e: case 0x0fc3: /* CVTSI2SS, MOVQ, MOVNTI */
    case 0x3a16: case 0x3a22: case 0x38f2: case 0x38f3: case 0x38f5 ... 0x38f7: case 0x3af0: /* PEXTRQ, PINSRQ, ADX, BMI */
        return in->wide && size == 4 ? 8 : size;
    default:
        return size;
    }
}

static void push(struct instruction *in, int count)
{
    for (int i = 1; i <= count; i++)
        through(in, SS, in->stack_size, WRITES, in->stack_mask, SP, (uint32_t)-(in->stack_size * i));
}

static void pop(struct instruction *in, int count)
{
    for (int i = 0; i < count; i++)
        through(in, SS, in->stack_size, READS, in->stack_mask, SP, (uint32_t)(in->stack_size * i));
}

/* ENTER (SDM vol. 2A): push BP, the frame pointers of outer levels, BP again; then the new top must be writable. */
static void enter(struct instruction *in)
{
    uint32_t frame = in->immediate & 0xffff, level = in->immediate >> 16 & 31, n = in->stack_size, pushes = 1;

    push(in, 1);
    for (uint32_t i = 1; i < level; i++) {
        pushes++;
        through(in, SS, n, READS, in->stack_mask, BP, (uint32_t)-(n * i));
        through(in, SS, n, WRITES, in->stack_mask, SP, (uint32_t)-(n * pushes));
    }
    if (level) {
        pushes++;
        through(in, SS, n, WRITES, in->stack_mask, SP, (uint32_t)-(n * pushes));
    }
    through(in, SS, n, WRITES, in->stack_mask, SP, (uint32_t)-(n * pushes) - frame);
}

static void string(struct instruction *in, int override)
{
    uint32_t op = in->opcode, size = !(op & 1) ? 1 : in->wide && op > 0x6f ? 8 : in->operand_size;
    int writes = op == 0xa4 || op == 0xa5 || op == 0xaa || op == 0xab || op == 0x6c || op == 0x6d;
    int repeated = in->repeat ? REPEATED : 0;

    if (op == 0xa4 || op == 0xa5 || op == 0xa6 || op == 0xa7 || op == 0xac || op == 0xad || op == 0x6e || op == 0x6f)
        through(in, override == NONE ? DS : override, size, READS | repeated, in->address_mask, SI, 0);
    if (op != 0xac && op != 0xad && op != 0x6e && op != 0x6f)
        through(in, ES, size, (writes ? WRITES : READS) | repeated, in->address_mask, DI, 0);
}

/* Stack and string operands, and what kind of near branch it is. */
void implicit(struct instruction *in, int override, int opsize66)
{
    uint32_t op = in->opcode;

    switch (op) {
    case 0x06: case 0x0e: case 0x16: case 0x1e: case 0x50 ... 0x57: case 0x68: case 0x6a: case 0x9c: case 0x0fa0:
    case 0x0fa8:
        push(in, 1);
        break;
    case 0x07: case 0x17: case 0x1f: case 0x58 ... 0x5f: case 0x9d: case 0x0fa1: case 0x0fa9:
        pop(in, 1);
        break;
    case 0x8f: /* the source is checked first */
        pop(in, 1);
        if (in->count > 1) {
            struct reference first = in->references[in->count - 1];

            memmove(in->references + 1, in->references, (size_t)(in->count - 1) * sizeof first);
            in->references[0] = first;
        }
        break;
    case 0x60:
        push(in, 8);
        break;
    case 0x61:
        pop(in, 8);
        break;
    case 0xa4 ... 0xa7: case 0xaa ... 0xaf: case 0x6c ... 0x6f:
        string(in, override);
        break;
    case 0xd7:
        through(in, override == NONE ? DS : override, 1, READS | XLAT, in->address_mask, BX, 0);
        break;
    case 0x0ff7: /* MASKMOVQ, MASKMOVDQU: whatever the mask */
        through(in, override == NONE ? DS : override, opsize66 ? 16 : 8, WRITES, in->address_mask, DI, 0);
        break;
    case 0xc8:
        enter(in);
        break;
    case 0xc9:
        through(in, SS, in->stack_size, READS, in->stack_mask, BP, 0);
        break;
    case 0xc2: case 0xc3:
        pop(in, 1);
        in->branch = BRANCH_RETURN;
        break;
    case 0xca: case 0xcb:
        pop(in, 2);
        break;
    case 0xcf:
        pop(in, 3);
        break;
    case 0x9a:
        push(in, 2);
        break;
    case 0xff:
        if (in->reg == 3 && in->rm == NONE)
            push(in, 2);
        if (in->reg == 2 || in->reg == 6)
            push(in, 1);
        if (in->reg == 2 || in->reg == 4)
            in->branch = BRANCH_OPERAND;
        break;
    case 0xe8:
        push(in, 1);
        in->branch = BRANCH_ALWAYS;
        break;
    case 0xe9: case 0xeb:
        in->branch = BRANCH_ALWAYS;
        break;
    case 0x70 ... 0x7f: case 0x0f80 ... 0x0f8f:
        in->branch = BRANCH_CONDITION;
        in->condition = op & 15;
        break;
    case 0xe0 ... 0xe3:
        in->branch = BRANCH_LOOP;
        in->condition = op & 3;
        break;
    default:
        break;
    }
}
