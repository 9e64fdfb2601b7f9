"""What the CPU starts in: ROM images found and placed."""
