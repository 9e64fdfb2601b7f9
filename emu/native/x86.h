/* Names of the architecture: registers, flags, control bits, vectors, descriptors (SDM vol. 1 and 3A). */
#ifndef V2E_X86_H
#define V2E_X86_H

enum { AX, CX, DX, BX, SP, BP, SI, DI };
/* Segment registers by their numbers in instructions; LDTR, TR, GDTR and IDTR as QEMU numbers them behind those. */
enum { ES, CS, SS, DS, FS, GS, LDT, TR, GDT, IDT };

/* EFLAGS (vol. 1, 3.4.3) */
#define EFLAGS_CF 1u
#define EFLAGS_PF 4u
#define EFLAGS_AF 0x10u
#define EFLAGS_ZF 0x40u
#define EFLAGS_SF 0x80u
#define EFLAGS_TF 0x100u
#define EFLAGS_IF 0x200u
#define EFLAGS_OF 0x800u
#define EFLAGS_IOPL_SHIFT 12
#define EFLAGS_IOPL (3u << EFLAGS_IOPL_SHIFT)
#define EFLAGS_NT 0x4000u
#define EFLAGS_RF 0x10000u
#define DR7_ENABLES 0xffu /* of the BREAKPOINTS in DR0 to DR3 */
#define BREAKPOINTS 4
#define EFLAGS_VM 0x20000u
#define EFLAGS_AC 0x40000u
#define EFLAGS_VIF 0x80000u
#define EFLAGS_VIP 0x100000u

/* CR0 (vol. 3A, 2.5) */
#define CR0_PE 1u
#define CR0_TS 8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u
#define CR0_DEFINED 0xe005003fu

/* CR4 (vol. 3A, 2.5) */
#define CR4_VME 1u
#define CR4_PVI 2u
#define CR4_TSD 4u
#define CR4_PAE 0x20u
#define CR4_OSFXSR 0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_OSXSAVE 0x40000u

/* Debug registers (vol. 3B, 17.2) */
#define DR6_BD 0x2000u
#define DR6_DEFINED 0xe00fu    /* BT, BS, BD, B3 to B0 */
#define DR6_ONES 0xffff0ff0u
#define DR7_GD 0x2000u
#define DR7_DEFINED 0xffff23ffu
#define DR7_ONES 0x400u

/* Vectors (vol. 3A, 6.15) */
#define EXCP_DE 0
#define EXCP_DB 1
#define EXCP_UD 6
#define EXCP_NM 7
#define EXCP_TS 10
#define EXCP_SS 12
#define EXCP_GP 13
#define EXCP_PF 14
#define EXCP_MF 16
#define EXCP_AC 17
#define EXCP_XM 19

/* The high double-word of a descriptor, which is also the flags of a descriptor cache (vol. 3A, 3.4.5) */
#define SEG_WRITABLE (1u << 9) /* of data; of code: readable */
#define SEG_EXPAND_DOWN (1u << 10)
#define SEG_CONFORMING (1u << 10) /* of code */
#define SEG_CODE (1u << 11)
#define SEG_NO_SYSTEM (1u << 12) /* the S bit: code or data */
#define SEG_DPL_SHIFT 13
#define SEG_PRESENT (1u << 15)
#define SEG_LONG (1u << 21) /* L: 64-bit code */
#define SEG_BIG (1u << 22)
#define SEG_GRANULAR (1u << 23)
#define FLAT UINT32_MAX /* the limit of 4 GiB */

#endif
