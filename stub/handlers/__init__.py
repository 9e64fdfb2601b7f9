"""One file a group of packets."""
