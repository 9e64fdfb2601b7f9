"""The built-in BIOS: a ROM (bios.asm, bios.bin) and its services in Python behind a private port."""
