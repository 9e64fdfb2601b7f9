; Every leaf of CPUID, a line each: leaf, EAX, EBX, ECX, EDX in hex. Ends with debug exit 0.
%include "guest.inc"
org 0
rom:
GUEST_SERVICES 16
start: cli
 xor ax,ax
 mov ss,ax
 mov sp,0x7000
 xor eax,eax
 cpuid
 mov ebp,eax
 xor esi,esi
.l: call one
 inc esi
 cmp esi,ebp
 jbe .l
 mov eax,0x80000000
 cpuid
 mov ebp,eax
 cmp ebp,0x80000000
 jb .e
 mov esi,0x80000000
.m: call one
 inc esi
 cmp esi,ebp
 jbe .m
.e: mov al,0
 jmp finish16
one: mov al,10
 out 0xe9,al
 mov eax,esi
 call hex8_16
 mov eax,esi
 xor ecx,ecx
 cpuid
 push edx
 push ecx
 push ebx
 push eax
 mov di,4
.x: mov al,' '
 out 0xe9,al
 pop eax
 call hex8_16
 dec di
 jnz .x
 ret
RESET_VECTOR start
