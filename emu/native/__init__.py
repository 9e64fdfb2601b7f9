"""The C helper that makes Unicorn exact and fast: its sources, and the shared library built from them."""
