"""A real Xen's HVM domains, by ctypes on Xen's own libraries, in dom0."""
