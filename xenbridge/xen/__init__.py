"""Xen itself: its files as subjects."""
