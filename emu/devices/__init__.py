"""One file a chip: constants, a State dataclass, read and write. No bus and no clock but what is injected."""
