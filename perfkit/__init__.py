"""perfkit finds out why a host or an inference shard is slow, and says what proves it."""

# Type checkers take it for true. Nothing is imported here: Ctrl-C is not yet handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from perfkit._native import Histogram

__all__ = ["Histogram", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports what is public when it is asked for: commands start without the C extension."""
    if name == "Histogram":
        from perfkit.histogram import Histogram

        return Histogram
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
