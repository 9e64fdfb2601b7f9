"""A real Xen: its HVM domains, by ctypes on Xen's own libraries, in dom0; its files as subjects."""
