/* What the VGA's registers make of an access to A0000h-BFFFFh. Shared with Python: emu/devices/vga_memory.py, Shared,
 * which sets all of it but the latch and the DAC, and says what each field means. 32-bit values hold a byte for each plane. */
#ifndef V2E_VGA_H
#define V2E_VGA_H

#include <stdint.h>

struct engine;

struct display {
    uint8_t *memory;
    struct engine *engine;
    uint64_t ram;
    uint32_t mask, latch;
    uint32_t first, length, bank;
    uint32_t map_mask, set_reset, enable_set_reset, compare, care, bit_mask;
    uint8_t chain_4, odd_even_write, odd_even_read, odd_even_address;
    uint8_t write_mode, read_mode, rotate, function, read_map, direct, pad[6];
    uint8_t dac_bits, dac_index, dac_component, dac_reading, dac_written, dac_latch[3], dac[768];
};

#endif
