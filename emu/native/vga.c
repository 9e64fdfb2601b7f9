/* The VGA's display memory: windows, planes, latches, write and read modes, and what is written to its DAC. Says in C what
 * emu/devices/vga_memory.py and vga.py say in Python, with the sources; they are tested to be equal. */
#include "fast.h"

#include <stddef.h>
#include <string.h>

#define FLOATING 0xffu
#define WINDOW 0x20000u

/* Where the four bytes at an offset of the planes are. */
static uint32_t place(uint32_t offset)
{
    return (offset & ~0xffffu) << 2 | ((offset ^ offset >> 14) & 3) << 16 | (offset & 0xfffc);
}

static uint32_t place_of(const struct display *d, uint32_t address)
{
    if (d->odd_even_address)
        address = (address & 0xfffe) | (address >> 16 & 1);
    return place((address & 0xffff) + d->bank) & d->mask;
}

static uint32_t spread(uint32_t planes)
{
    return (planes & 1) * 0xff | (planes >> 1 & 1) * 0xff00 | (planes >> 2 & 1) * 0xff0000 |
           (planes >> 3 & 1) * 0xff000000u;
}

static uint32_t *word_at(const struct display *d, uint32_t at)
{
    return (uint32_t *)(void *)(d->memory + (at & ~3u));
}

/* Translations may have been made of display memory, by way of the linear frame buffer. */
static void written(const struct display *d, uint32_t at, uint32_t count)
{
    engine *e = d->engine;

    if (e && (d->ram + at) / PAGE < e->pages && e->has_code[(d->ram + at) / PAGE])
        v2e_fast_memory_changed(e, d->ram + at, d->ram + at + count);
}

static uint32_t read_byte(struct display *d, uint32_t offset)
{
    uint32_t address = offset - d->first, at, word, plane;

    if (address >= d->length)
        return FLOATING;
    at = d->chain_4 ? (address + d->bank) & d->mask : place_of(d, address);
    word = *word_at(d, at);
    if (!d->direct)
        d->latch = word;
    if (d->chain_4)
        return d->memory[at];
    if (d->read_mode) {
        uint32_t differs = (word ^ d->compare) & d->care;

        return ~(differs | differs >> 8 | differs >> 16 | differs >> 24) & 0xff;
    }
    plane = d->odd_even_read ? (d->read_map & 2u) | (address & 1) : d->read_map;
    return word >> 8 * plane & 0xff;
}

/* What the graphics controller makes of a byte for the four planes. */
static uint32_t modify(const struct display *d, uint32_t value)
{
    uint32_t data, mask = d->bit_mask, rotated;

    if (d->write_mode == 1)
        return d->latch;
    if (d->write_mode == 2) {
        data = spread(value);
    } else {
        rotated = ((value >> d->rotate | value << (8 - d->rotate)) & 0xff) * 0x01010101u;
        if (d->write_mode == 0) {
            data = (rotated & ~d->enable_set_reset) | (d->set_reset & d->enable_set_reset);
        } else {
            data = d->set_reset;
            mask &= rotated;
        }
    }
    switch (d->function) {
    case 1: data &= d->latch; break;
    case 2: data |= d->latch; break;
    case 3: data ^= d->latch; break;
    }
    return (data & mask) | (d->latch & ~mask);
}

static void write_byte(struct display *d, uint32_t offset, uint32_t value)
{
    uint32_t address = offset - d->first, planes = d->map_mask, at, *word;

    if (address >= d->length)
        return;
    if (d->chain_4) {
        at = (address + d->bank) & d->mask;
        if (d->direct) {
            d->memory[at] = (uint8_t)value;
            written(d, at, 1);
            return;
        }
        planes &= 0xffu << 8 * (at & 3);
        at &= ~3u;
    } else {
        at = place_of(d, address);
        if (d->odd_even_write)
            planes &= address & 1 ? 0xff00ff00u : 0x00ff00ffu;
    }
    word = word_at(d, at);
    *word = (*word & ~planes) | (modify(d, value) & planes);
    written(d, at, 4);
}

#define DAC_ADDRESS 0x3c8 /* of writes */
#define DAC_DATA 0x3c9
#define COMPONENTS 3

/* True when a byte written to `port` was one for the DAC: nothing but its own reads tells of that. */
int dac_written(struct display *d, uint32_t port, uint32_t value)
{
    if ((port != DAC_ADDRESS && port != DAC_DATA) || !d || !d->dac_bits)
        return 0;
    d->dac_written = 1;
    if (port == DAC_ADDRESS) {
        d->dac_index = (uint8_t)value;
        d->dac_component = d->dac_reading = 0;
        return 1;
    }
    d->dac_latch[d->dac_component++] = (uint8_t)value & d->dac_bits;
    if (d->dac_component == COMPONENTS) {
        memcpy(d->dac + COMPONENTS * d->dac_index++, d->dac_latch, COMPONENTS);
        d->dac_component = 0;
    }
    return 1;
}

static void noted(const struct display *d)
{
    if (d->engine)
        note_answer(d->engine);
}

/* uc_mmio_map's functions, with the display as user data. Wide accesses are made of bytes, the lowest first. */
API uint64_t v2e_vga_read(void *uc, uint64_t offset, unsigned size, void *display)
{
    uint64_t value = 0;

    (void)uc;
    noted(display);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(display, (uint32_t)offset + i) << 8 * i;
    return value;
}

API void v2e_vga_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *display)
{
    (void)uc;
    noted(display);
    for (unsigned i = 0; i < size; i++)
        write_byte(display, (uint32_t)offset + i, (uint32_t)(value >> 8 * i) & 0xff);
}

/* The size of the structure shared with Python, and where its last field is: both sides must agree. */
API uint64_t v2e_vga_layout(void)
{
    return sizeof(struct display) << 32 | offsetof(struct display, direct);
}

/* Serve the display whose window begins at physical `base`, and whose memory at `ram` of Unicorn's numbering. */
API void v2e_fast_display(engine *e, struct display *display, uint64_t base, uint64_t ram)
{
    display->engine = e;
    display->ram = ram;
    e->display = display;
    e->display_base = base;
}

/* ---- The window as plain memory
 *
 * Where an access is no more than one to a byte of display memory, the page's TLB entry leads there, and the guest
 * reads and writes without a call. Python has the TLB flushed when this ends or when other memory is behind it. Pages
 * that hold code stay with the functions above, which notice writes to it.
 */
void expose_display(engine *e, uint64_t physical, uint64_t page, tlb_entry *entry)
{
    const struct display *d = e->display;
    uint64_t offset = physical - e->display_base;
    uint32_t at;

    if (!d || e->cells->noting || offset >= WINDOW || !d->direct || offset - d->first >= d->length)
        return;
    at = ((uint32_t)offset - d->first + d->bank) & d->mask & ~(uint32_t)(PAGE - 1);
    if ((d->ram + at) / PAGE < e->pages && e->has_code[(d->ram + at) / PAGE])
        return;
    if (entry->read == (page | TLB_MMIO))
        entry->read = page;
    if (entry->write == (page | TLB_MMIO))
        entry->write = page;
    entry->addend = (uint64_t)d->memory + at - page;
}

/* True when code at `ram` is in display memory, of which pages may be exposed. */
int exposed(const engine *e, uint64_t ram)
{
    return e->display && e->display->direct && ram - e->display->ram <= e->display->mask;
}
