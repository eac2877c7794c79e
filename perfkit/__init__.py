"""perfkit finds out why a host or an inference shard is slow, and says what proves it."""

__version__ = "0.1.0"
