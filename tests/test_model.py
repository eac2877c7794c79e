"""The values that a capture is made of."""

from __future__ import annotations

import msgspec
import pytest

from perfkit import model
from perfkit.errors import Unavailable
from perfkit.host import Host
from perfkit.model import Reading, Target, polled

STRUCTS = sorted(
    (
        value
        for value in vars(model).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value is not msgspec.Struct
    ),
    key=lambda value: value.__name__,
)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_value_is_frozen(struct: type[msgspec.Struct]) -> None:
    """Values are never changed after they were made."""
    assert struct.__struct_config__.frozen


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_name_with_a_unit_ends_in_it(struct: type[msgspec.Struct]) -> None:
    """Instants and durations end in _ns or _s, sizes in _bytes, counts in _count."""
    units = ("ns", "bytes", "count", "hertz", "ticks")
    fields = [field for field in struct.__struct_fields__ if not field.startswith("_")]

    astray = [f for f in fields for unit in units if f"_{unit}_" in f"{f}" and not f.endswith(unit)]

    assert astray == []


def test_polled_session_reads_anew_each_time() -> None:
    """A session around a pure read keeps nothing: each poll reads the host again."""
    values = iter([1.0, 2.0])
    session = polled(lambda host, target: [Reading("x", (), next(values))])(
        Host(), Target("host", 0, "", "")
    )

    found = [*session.poll(), *session.poll(), *session.close()]

    assert found == [Reading("x", (), 1.0), Reading("x", (), 2.0)]


def test_host_says_why_a_read_failed(tmp_path: object) -> None:
    """A file that is absent is unavailable, with its path and the reason in words."""
    host = Host(tmp_path, tmp_path)  # type: ignore[arg-type]

    with pytest.raises(Unavailable, match="nothing: no such file or directory"):
        host.read_proc("nothing")
