"""x86 as data and pure functions: registers, descriptors, modes, paging, disassembly."""
