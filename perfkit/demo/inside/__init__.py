"""What the supervisor can switch on inside the service: one file each.

Each file has `start(**settings) -> dict`, whose fields go back to the supervisor, and `stop()`.
"""
