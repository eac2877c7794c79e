"""perfkit finds out why a host or an inference shard is slow, and says what proves it."""

# Type checkers take it for true. Nothing is imported here: Ctrl-C is not yet handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from perfkit._native import Histogram, SharedHistogram, SharedHistogramReader
    from perfkit.shared_histograms import find_shared, get_include

__all__ = [
    "Histogram",
    "SharedHistogram",
    "SharedHistogramReader",
    "__version__",
    "find_shared",
    "get_include",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports what is public when it is asked for: commands start without the C extension."""
    if name == "Histogram":
        from perfkit.histogram import Histogram

        return Histogram
    if name in __all__:
        from perfkit import shared_histograms

        return getattr(shared_histograms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
