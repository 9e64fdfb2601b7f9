"""The hypervisor's side: wire formats, conversion, files of Xen as subjects, hypervisors. See docs/architecture.md."""
