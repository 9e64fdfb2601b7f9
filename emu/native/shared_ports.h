/* Ports and memory of devices answered without Python: shared with emu/devices/shared_ports.py, which says what each field means. */
#ifndef V2E_SHARED_PORTS_H
#define V2E_SHARED_PORTS_H

#include <stdint.h>

struct shared_ports {
    uint64_t skipped, pulse;
    uint32_t loaded, ce;
    uint16_t latch;
    uint8_t left, ready, post, pad[3];
    uint8_t pic_ready, imr, isr, requests, levels, slaves, served, kept;
    int64_t hpet_origin;
    uint32_t hpet_tick, pad3;
};

#endif
