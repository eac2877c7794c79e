"""The ways in which the service may serve: one file each, named as `--front` names it."""
