/* What decode.c and operands.c share. */
#ifndef V2E_OPERANDS_H
#define V2E_OPERANDS_H

#include "checks.h"

/* ---- operands.c */
struct reference *append(struct instruction *in);
struct reference *through(struct instruction *in, int segment, uint32_t size, int kind, uint32_t mask, int base,
                          uint32_t displacement);
int kind_of(char access);
uint32_t size_of(char letter, uint32_t osz, int opsize66, int rep);
uint32_t size_in_64(const struct instruction *in, uint32_t size);
void implicit(struct instruction *in, int override, int opsize66);

#endif
