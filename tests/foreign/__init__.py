"""Servers that are not ours, faults in and around them, and whether perfkit names these."""
