"""The hypervisor's side: wire formats and native execution. Empty of code until the bridge is built (see docs/architecture.md)."""
