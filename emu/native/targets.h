/* What the selector of a far transfer names (targets.c). `host`: the return address of the function that transfers. */
#ifndef V2E_TARGETS_H
#define V2E_TARGETS_H

#include <stdint.h>

int rare(void *env, uint32_t selector, int gates, uint64_t host);
int beyond(void *env, uint32_t selector, uint32_t offset, uint64_t host);
int calls_code(void *env, uint32_t selector, int by_gate, uint64_t host);
int calls_by_gate_64(void *env, uint32_t selector, uint64_t host);
int beyond_in_64(void *env, uint32_t selector, uint32_t offset, uint64_t host);
uint32_t size_of_pushes(void *env, uint32_t selector, uint32_t operand_size, uint64_t host);
int returns_to_code(void *env, uint32_t selector, uint64_t host);

#endif
