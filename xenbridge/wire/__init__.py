"""construct schemas of Xen's formats."""
