"""The faults that can be switched on: one file each, named by the cause it makes true.

Each file has `start(world, healthy) -> Injection`; the injection's `undo` ends the fault.
"""
