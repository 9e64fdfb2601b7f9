/* Which memory an instruction of 16- or 32-bit code names: emu/x86/operands.py in C, by the tables of that module.
 *
 * SDM vol. 2A, chapter 2 (prefixes, ModRM, SIB) and vol. 2D, appendix A (opcode maps). Of 64-bit code the lengths are
 * found, the near branches, and the operand that ModRM names with the low 32 bits of its displacement; VEX and what is no
 * instruction there have none. Of VEX BMI1 and BMI2 are known, which is all that the engine executes.
 */
#include "operands.h"

#include <string.h>

static const struct maps *maps;

/* The tables, kept by Python as long as the process lives. */
API void v2e_decode_maps(const struct maps *given)
{
    maps = given;
}

struct reader {
    const uint8_t *code;
    int at, length;
    int ended; /* the bytes end before the instruction does */
};

static uint32_t byte(struct reader *r)
{
    if (r->at >= r->length) {
        r->ended = 1;
        return 0;
    }
    return r->code[r->at++];
}

/* Little-endian, `size` bytes, zero-extended. */
static uint32_t number(struct reader *r, int size)
{
    uint32_t value = 0;

    for (int i = 0; i < size; i++)
        value |= byte(r) << 8 * i;
    return value;
}

static uint32_t signed_number(struct reader *r, int size)
{
    uint32_t value = number(r, size);

    return size == 1 ? (uint32_t)(int8_t)value : size == 2 ? (uint32_t)(int16_t)value : value;
}

/* 16-bit addressing: base and index (SDM vol. 2A, table 2-1). */
static const uint8_t forms16[8][2] = {{BX, SI}, {BX, DI}, {BP, SI}, {BP, DI}, {SI, NONE}, {DI, NONE}, {BP, NONE},
                                      {BX, NONE}};

/* Fill in the reference that ModRM names. `popped` is added where the base is ESP: POP computes its destination with
 * the pointer already incremented (SDM vol. 2B, "POP"). REX.B and REX.X are the fourth bits of base and index, but do
 * not take part in what selects SIB, no base and no index, but for the last (SDM vol. 2A, table 2-5). */
static void modrm_memory(struct reader *r, uint32_t modrm, uint32_t popped, uint32_t rex, struct reference *ref)
{
    uint32_t mod = modrm >> 6, low = modrm & 7;

    ref->segment = DS;
    if (ref->mask == 0xffff) {
        if (mod == 0 && low == 6) {
            ref->displacement = number(r, 2);
            return;
        }
        ref->base = forms16[low][0];
        ref->index = forms16[low][1];
        ref->displacement = mod ? signed_number(r, (int)mod) : 0;
        if (ref->base == BP)
            ref->segment = SS;
        return;
    }
    ref->base = (uint8_t)low;
    if (low == SP) {
        uint32_t sib = byte(r);

        ref->base = sib & 7;
        ref->index = (uint8_t)((sib >> 3 & 7) | (rex & 2) << 2);
        ref->scale = (uint8_t)(1u << (sib >> 6));
        if (ref->index == SP)
            ref->index = NONE;
    }
    if (mod == 0 && ref->base == BP) {
        ref->base = NONE;
        ref->displacement = number(r, 4);
        return;
    }
    ref->displacement = mod == 0 ? 0 : signed_number(r, mod == 1 ? 1 : 4);
    if (ref->base == SP)
        ref->displacement += popped;
    if (ref->base == SP || ref->base == BP)
        ref->segment = SS;
    ref->base = (uint8_t)(ref->base | (rex & 1) << 3);
}

static struct spec lookup(uint32_t opcode, uint32_t reg, int rep, int opsize66)
{
    const struct spec *map = opcode >= 0x0f00 ? maps->two_byte : maps->one_byte;
    struct spec spec = map[opcode & 0xff];

    if (spec.access == 'G') {
        for (uint32_t i = 0; i < GROUPS; i++)
            if (maps->groups[i].opcode == opcode) {
                char immediate = spec.immediate;

                spec = maps->groups[i].specs[reg];
                spec.immediate = immediate;
                break;
            }
        if ((opcode == 0xf6 || opcode == 0xf7) && reg < 2)
            spec.immediate = opcode == 0xf6 ? 'b' : 'z';
    } else if (spec.access == 'X') {
        spec = maps->x87[opcode - 0xd8][reg];
    } else if (spec.access == 'S') {
        for (uint32_t i = 0; i < SSE_FORMS; i++)
            if (maps->sse[i].opcode == (opcode & 0xff)) {
                char immediate = spec.immediate;

                spec = maps->sse[i].specs[rep == 0xf2 ? 3 : rep == 0xf3 ? 2 : opsize66 ? 1 : 0];
                spec.immediate = immediate;
                break;
            }
    }
    return spec;
}

/* The extension that the instruction came with (emu/x86/vectors.py), as a bit; 0 for the rest. */
static uint16_t extension_of(const struct instruction *in)
{
    uint32_t op = in->opcode;

    if (op == 0x0fae)
        return maps->fences[in->rm != NONE][in->reg];
    if (op >= 0x0f00 && op <= 0x0fff) {
        const uint16_t *forms = maps->extensions[op & 0xff];

        if (!forms[in->form] && (forms[0] | forms[1] | forms[2] | forms[3]))
            return EXTENSION_NONE;
        return forms[in->form];
    }
    if ((op == 0xdb || op == 0xdd || op == 0xdf) && in->reg == 1 && in->rm == NONE) /* FISTTP */
        return EXTENSION_SSE3;
    return 0;
}

/* Of 64-bit code: VEX, EVEX, what was dropped with bytes behind its opcode or a stack (SDM vol. 2D, A.3, "i64"), what some
 * vendors alone have, and near branches with an operand size prefix, on which Intel and AMD differ. */
static int unknown_in_64(uint32_t opcode, int opsize66)
{
    switch (opcode) {
    case 0x60: case 0x61: case 0x62: case 0x82: case 0x9a: case 0xc4: case 0xc5: case 0xd4: case 0xd5: case 0xea:
    case 0x0f0f: case 0x0f78: case 0x0f79: case 0x0fa6: case 0x0fa7:
        return 1;
    case 0xe8: case 0xe9: case 0x0f80 ... 0x0f8f:
        return opsize66;
    default:
        return 0;
    }
}

/* MOV of a control or debug register from the 8th on, which REX.R makes of `in`. There is CR8 (SDM vol. 2B, MOV). */
static int is_none_above(const struct instruction *in)
{
    switch (in->opcode) {
    case 0x0f20: case 0x0f22:
        return in->reg != 0;
    case 0x0f21: case 0x0f23:
        return 1;
    default:
        return 0;
    }
}

/* BMI1 and BMI2 behind the three-byte VEX prefix, C4h (SDM vol. 2A, 2.3; vol. 2D, tables ). The reader is
 * behind C4h, with three bytes to come, and stays there for what is none of them: no other instruction with VEX exists
 * here. */
static struct spec vex(struct reader *r, uint32_t *opcode)
{
    const uint8_t *at = r->code + r->at;
    uint32_t map = at[0] & 31, sub = at[2], pp = at[1] & 3; /* none, 66, F3, F2 */
    int known, none = (at[1] >> 3 & 15) == 15;              /* VEX.vvvv names no register */

    if (map == 2)
        known = (sub == 0xf2 && pp == 0) || (sub == 0xf3 && pp == 0 && (at[3] >> 3 & 7) >= 1 && (at[3] >> 3 & 7) <= 3) ||
                (sub == 0xf5 && pp != 1) || (sub == 0xf6 && pp == 3) || sub == 0xf7;
    else
        known = map == 3 && sub == 0xf0 && pp == 3 && none;
    if (!known || at[1] & 4) /* VEX.L is 0 */
        return (struct spec){0, 0, 0};
    r->at += 3;
    *opcode = (map == 2 ? 0x3800u : 0x3a00u) | sub;
    return (struct spec){'r', 'd', map == 3 ? 'b' : 0};
}

/* The operand of what is behind 0F 38 and 0F 3A. */
static struct spec behind(uint32_t opcode, int rep, int opsize66)
{
    char immediate = opcode >= 0x3a00 ? 'b' : 0;

    switch (opcode) {
    case 0x38f0: /* CRC32 and MOVBE */
        return (struct spec){'r', rep == 0xf2 ? 'b' : 'v', 0};
    case 0x38f1:
        return (struct spec){rep == 0xf2 ? 'r' : 'w', 'v', 0};
    case 0x3820: case 0x3823: case 0x3825: case 0x3830: case 0x3833: case 0x3835: /* PMOVSX, PMOVZX */
        return (struct spec){'r', 'q', 0};
    case 0x3821: case 0x3824: case 0x3831: case 0x3834:
        return (struct spec){'r', 'd', 0};
    case 0x3822: case 0x3832:
        return (struct spec){'r', 'w', 0};
    case 0x38f6: /* ADCX, ADOX */
    case 0x3a0a: case 0x3a21: case 0x3a22: /* ROUNDSS, INSERTPS, PINSRD */
        return (struct spec){'r', 'd', immediate};
    case 0x3a0b: /* ROUNDSD */
        return (struct spec){'r', 'q', immediate};
    case 0x3a14: case 0x3a15: case 0x3a16: case 0x3a17: /* PEXTRB, PEXTRW, PEXTRD, EXTRACTPS */
        return (struct spec){'w', opcode == 0x3a14 ? 'b' : opcode == 0x3a15 ? 'w' : 'd', immediate};
    case 0x3a20: /* PINSRB */
        return (struct spec){'r', 'b', immediate};
    default:
        return (struct spec){'r', opsize66 ? 'o' : 'q', immediate};
    }
}

/* The instruction at the beginning of `code`. Returns 0 when the bytes end before it does, or its length is not known.
 * `bits` is 16, 32 or 64. */
int decode(const uint8_t *code, int length, int bits, int stack_bits, struct instruction *in)
{
    struct reader r = {code, 0, length, 0};
    int opsize66 = 0, addr67 = 0, rep = 0, override = NONE, wide = 0;
    uint32_t rex = 0;
    struct spec spec = {0, 0, 0};
    uint32_t op;

    memset(in, 0, offsetof(struct instruction, references));
    in->rm = NONE;
    for (;;) {
        op = byte(&r);
        if (r.ended)
            return 0;
        if (bits == 64 && op >> 4 == 4) { /* REX counts right before the opcode only */
            rex = op;
            wide = op & 8;
            continue;
        }
        if (op == 0x26 || op == 0x2e || op == 0x36 || op == 0x3e)
            override = bits == 64 ? override : (int)(op >> 3 & 3); /* ignored in 64-bit code: prefixes.c */
        else if (op == 0x64 || op == 0x65)
            override = (int)(op - 0x60);
        else if (op == 0x66)
            opsize66 = 1;
        else if (op == 0x67)
            addr67 = 1;
        else if (op == 0xf2 || op == 0xf3)
            rep = (int)op;
        else if (op == 0xf0)
            in->lock = 1;
        else
            break;
        wide = 0;
        rex = 0;
    }
    in->operand_size = wide || (bits != 16) != opsize66 ? 4 : 2; /* immediates of 64-bit operands have 32 bits */
    in->stack_size = bits != 64 ? in->operand_size : opsize66 && !wide ? 2 : 8;
    in->wide = wide != 0;
    in->narrow = bits == 64 && addr67;
    in->address_mask = bits == 64 || (bits == 32) != addr67 ? 0xffffffff : 0xffff;
    in->stack_mask = stack_bits == 32 ? 0xffffffff : 0xffff;
    in->opcode = op;
    in->repeat = rep != 0;
    in->form = rep == 0xf3 ? 2 : rep == 0xf2 ? 3 : opsize66 ? 1 : 0;
    if (op == 0x0f) {
        op = byte(&r);
        in->opcode = 0x0f00 | op;
    }
    /* VEX: in 32-bit code what would be LES and LDS of a register */
    if ((in->opcode == 0xc4 || in->opcode == 0xc5) && (bits == 64 || (bits == 32 && r.at < length && code[r.at] >= 0xc0))) {
        if (op == 0xc4 && length - r.at < 4)
            return 0;
        if (op == 0xc4 && !opsize66 && !rep && !rex && !in->lock)
            spec = vex(&r, &in->opcode);
        in->form = VEX;
        if (bits == 64 && spec.access) { /* VEX has the bits of REX: R, X and B inverted, and W */
            rex = ~(uint32_t)code[r.at - 3] >> 5 & 7;
            wide = code[r.at - 2] >> 7;
            in->wide = wide != 0;
        }
        if (spec.access)
            in->form += code[r.at - 2] & 3; /* VEX.pp */
        if (!spec.access) {
            in->extension = EXTENSION_NONE;
            in->unknown = 1;
            return 0;
        }
    }
    if (bits == 64 && (in->opcode == 0xca || in->opcode == 0xcb || in->opcode == 0xcf))
        in->stack_size = wide ? 8 : in->operand_size; /* far returns have 4 bytes by default */
    if (bits == 64 && !spec.access && unknown_in_64(in->opcode, opsize66)) {
        in->extension = in->opcode == 0x0f0f ? EXTENSION_NONE : extension_of(in); /* 3DNow!, which no model has */
        in->unknown = 1;
        return 0;
    }
    if (spec.access) {
        /* all is known */
    } else if (in->opcode == 0x0f38 || in->opcode == 0x0f3a) {
        uint32_t sub = byte(&r);

        in->opcode = op << 8 | sub;
        spec = behind(in->opcode, rep, opsize66);
    } else {
        spec = lookup(in->opcode, 0, rep, opsize66);
        if (maps->modrm[in->opcode >= 0x0f00][op]) {
            if (r.at >= r.length)
                return 0;
            spec = lookup(in->opcode, code[r.at] >> 3 & 7, rep, opsize66);
        }
    }
    if (in->opcode > 0x0fff || maps->modrm[in->opcode >= 0x0f00][op]) {
        uint32_t modrm = byte(&r);

        in->reg = modrm >> 3 & 7;
        if (modrm >> 6 == 3 || (in->opcode >= 0x0f20 && in->opcode < 0x0f24)) {
            in->rm = modrm & 7;
        } else {
            struct reference *ref = append(in);

            modrm_memory(&r, modrm, in->opcode == 0x8f ? in->operand_size : 0, rex, ref);
            in->relative = bits == 64 && (modrm & 0xc7) == 5;
            if (spec.access && spec.access != '-') {
                ref->size = (uint16_t)size_of(spec.size, wide ? 8 : in->operand_size, opsize66, rep);
                if (bits == 64)
                    ref->size = (uint16_t)size_in_64(in, ref->size);
                ref->kind = (uint8_t)kind_of(spec.access);
                if (in->opcode == 0x63 && bits == 64) /* MOVSXD, in ARPL's place */
                    ref->kind = READS;
                if (override != NONE)
                    ref->segment = (uint8_t)override;
                if (in->opcode == 0x0fa3 || in->opcode == 0x0fab || in->opcode == 0x0fb3 || in->opcode == 0x0fbb)
                    ref->bits = (uint8_t)(in->reg | (rex & 4) << 1);
            } else {
                in->count--;
            }
        }
    }
    switch (spec.immediate) {
    case 0:
        break;
    case 'o': {
        uint32_t at = number(&r, in->address_mask > 0xffff ? 4 : 2);

        if (bits == 64 && !addr67)
            number(&r, 4);
        through(in, override == NONE ? DS : override, !(op & 1) ? 1 : wide ? 8 : in->operand_size, op < 0xa2 ? READS : WRITES,
                in->address_mask, NONE, at);
        break;
    }
    case 'b':
        in->immediate = signed_number(&r, 1);
        break;
    case 'z':
        in->immediate = signed_number(&r, (int)in->operand_size);
        if (wide && in->opcode >= 0xb8 && in->opcode <= 0xbf)
            number(&r, 4);
        break;
    case 'w':
        in->immediate = number(&r, 2);
        break;
    case 'e':
        in->immediate = number(&r, 3);
        break;
    default: /* p */
        in->immediate = number(&r, (int)in->operand_size);
        number(&r, 2);
    }
    if (r.ended)
        return 0;
    in->length = (uint8_t)r.at;
    in->extension = rex & 4 && is_none_above(in) ? EXTENSION_NONE : extension_of(in);
    if (r.at > LONGEST) /* #GP(0), which the engine raises */
        in->count = 0;
    else
        implicit(in, override, opsize66);
    for (int i = 0; wide && i < in->count && in->opcode >= 0xa5 && in->opcode <= 0xaf && in->opcode & 1; i++)
        in->references[i].size = 8; /* MOVSQ and its kin */
    return 1;
}

/* For the test that compares this decoder with emu/x86/operands.py. */
API int v2e_decode(const uint8_t *code, int length, int bits, int stack_bits, struct instruction *in)
{
    return decode(code, length, bits, stack_bits, in);
}
