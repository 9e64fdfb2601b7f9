"""The hypervisor's side: wire formats and native execution. Planned, not built: see docs/architecture.md."""
