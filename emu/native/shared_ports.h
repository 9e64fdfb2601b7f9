/* Ports and memory of devices answered without Python: shared with emu/devices/shared_ports.py, which says what each field means. */
#ifndef V2E_SHARED_PORTS_H
#define V2E_SHARED_PORTS_H

#include <stdint.h>

#define DELIVERIES 64
#define HPET_TIMERS 3

struct shared_ports {
    uint64_t skipped, pulse;
    uint32_t loaded, ce;
    uint16_t latch;
    uint8_t left, ready, post, pad[3];
    uint8_t pic_ready, imr, isr, requests, levels, slaves, served, kept;
    int64_t hpet_origin;
    uint32_t hpet_tick, rises;
    uint64_t comparators[HPET_TIMERS];
    uint64_t edge;
    uint8_t ticking, edges_ready, out, vectors, acknowledged, idle_timers, pad3[2];
    uint32_t logged, room, passed, pad4;
    uint64_t taken_at[DELIVERIES];
    uint8_t taken[DELIVERIES];
};

#endif
