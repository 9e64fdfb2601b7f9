/* The kernel of docs/gdb.md: a multiboot image that counts primes and says how many there are. Freestanding C. */

#define COM1 0x3f8
#define DEBUG_EXIT 0xf4

__attribute__((aligned(16))) unsigned char stack[4096];

/* Behind the first jump stands a Multiboot header: magic, flags, checksum (Multiboot Specification 0.6.96, 3.1). */
__asm__(".globl _start\n"
        "_start: jmp begin\n"
        "        .balign 4\n"
        "        .long 0x1badb002, 0, -0x1badb002\n"
        "begin:  mov $stack + 4096, %esp\n"
        "        call kmain\n"
        "halt:   hlt\n"
        "        jmp halt\n");

static void outb(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

struct sieve {
    unsigned limit;
    unsigned found;
    unsigned char composite[100];
};

static struct sieve sieve;

static void strike_out(struct sieve *s, unsigned prime)
{
    for (unsigned n = prime * prime; n < s->limit; n += prime)
        s->composite[n] = 1;
}

static unsigned count_primes(struct sieve *s, unsigned limit)
{
    s->limit = limit;
    for (unsigned n = 2; n < limit; n++) {
        if (s->composite[n])
            continue;
        s->found++;
        strike_out(s, n);
    }
    return s->found;
}

static void print_number(unsigned n)
{
    if (n >= 10)
        print_number(n / 10);
    outb(COM1, '0' + n % 10);
}

void kmain(void)
{
    unsigned primes = count_primes(&sieve, 100);

    print_number(primes);
    outb(COM1, '\n');
    outb(DEBUG_EXIT, 0);
}
