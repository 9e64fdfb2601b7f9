"""The hypervisor's side: a real Xen's domains and the bridge to what the hypervisor owns."""
