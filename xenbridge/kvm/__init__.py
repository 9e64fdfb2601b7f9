"""Linux's KVM as the native CPU: its system calls, virtual machine, vCPU, and what this host's can and cannot do."""
