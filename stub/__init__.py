"""gdb's side: the remote serial protocol, from bytes to a target."""
