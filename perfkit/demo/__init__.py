"""A small real inference service, a load for it, and faults to switch on while it runs."""
