"""perfkit.stacks.StackTable as its users see it: what is counted, refused, and given back."""

from __future__ import annotations

import array
import ast
import pickle
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_tree import ROOT
from stack_oracle import ALL, OTHER, UNKNOWN, Stack, make, read_counts, read_nodes, sip_hash, to_id

from perfkit.stacks import StackTable, StackTree

OF_EVERY_TYPE = set(dir(object)) | {"__module__"}
SPECIAL = {"__eq__": " == ", "__reduce__": "pickle.dumps("}
MAIN, WORK, READ = ("main", "app.py"), ("work", "app.py"), ("read", "libc.so.6")
STACKS: dict[Stack, int] = {(MAIN,): 2, (WORK, MAIN): 5, (READ, WORK, MAIN): 13, (READ, MAIN): 1}
ONE = np.ones(1, np.int64)


def list_typed(name: str) -> set[str]:
    """Names of methods and properties of a class in _native.pyi."""
    tree = ast.parse((ROOT / "perfkit" / "_native.pyi").read_text())
    (found,) = [one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name]
    return {part.name for part in found.body if isinstance(part, ast.FunctionDef)}


@pytest.mark.parametrize("kind", [StackTable, StackTree])
def test_types_say_what_the_extension_has(kind: type) -> None:
    """_native.pyi lists the methods of both classes, no more and no fewer."""
    typed = list_typed(kind.__name__)

    had = {name for name in vars(kind) if not name.startswith("_") or name in typed}
    assert had == typed


@pytest.mark.parametrize("kind", [StackTable, StackTree])
def test_every_method_is_tested_and_described(kind: type) -> None:
    """Each name of the types occurs in their tests, and help() says what each method does."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_stack_*.py"))
    names = list_typed(kind.__name__) - (OF_EVERY_TYPE - set(SPECIAL))

    untested = {name for name in names if SPECIAL.get(name, f".{name}") not in text}
    bare = {name for name in names if callable(vars(kind)[name]) and not vars(kind)[name].__doc__}
    assert (untested, bare - set(SPECIAL)) == (set(), set())


def test_example_of_the_page_prints_what_it_says() -> None:
    """docs/stacks.md shows a program and its output, which are true."""
    page = (ROOT / "docs" / "stacks.md").read_text()
    program, printed = (
        page.split(f"```{kind}\n", 1)[1].split("```")[0] for kind in ("python", "text")
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == printed.strip()


def test_hash_of_the_oracle_is_siphash() -> None:
    """The oracle's hash gives the first published vector of SipHash-2-4 with 128 bits."""
    found = sip_hash(b"", bytes(range(16)))

    assert found.hex() == "a3817f04ba25a8e66df67214c7550293"


@pytest.mark.parametrize(
    "stack",
    [
        (),
        (("", ""),),
        (("a", ""),),
        (("", "a"),),
        (("abc", "d"),),
        (("abcd", "efgh"), ("ab", "")),
        (("ab", "cd"), ("a", "bcd")),
        (("日本", "é.py"), ("x" * 65535, "y" * 65535)),
        tuple((f"f{i}", f"{i % 7}.py") for i in range(300)),
    ],
    ids=lambda stack: str(len(stack)),
)
def test_id_is_what_the_texts_say(stack: Stack) -> None:
    """Ids can be worked out by anyone, from nothing but names and files."""
    table = StackTable()

    number = table.intern(stack)

    assert (number, table.ids()) == (0, to_id(stack))
    assert table.frames(0) == stack


def test_stacks_are_counted() -> None:
    """A stack is there once, whatever object its frames are, and counts add up."""
    table = make(STACKS, 10)

    table.record(iter([list(MAIN) and ("ma" + "in", "app.py")]), 3)
    table.record([MAIN])

    assert read_counts(table) == {**STACKS, (MAIN,): 6}
    assert (table.total, table.stack_count, table.duration_ns) == (25, 4, 10)
    assert table.intern([WORK, MAIN]) == 1
    assert repr(table) == "<StackTable stacks=4 total=25 duration_ns=10>"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda t: t.intern("main"), TypeError),
        (lambda t: t.intern(5), TypeError),
        (lambda t: t.intern([("a", "b", "c")]), TypeError),
        (lambda t: t.intern([("a", b"b")]), TypeError),
        (lambda t: t.intern([["a", "b"]]), TypeError),
        (lambda t: t.intern([("a", None)]), TypeError),
        (lambda t: t.intern([("\ud800", "")]), ValueError),
        (lambda t: t.intern([("a" * 65536, "")]), ValueError),
        (lambda t: t.record([MAIN], -1), ValueError),
        (lambda t: t.record([MAIN], 2**63), OverflowError),
        (lambda t: t.record([MAIN], 1.5), TypeError),
        (lambda t: t.record(), TypeError),
        (lambda t: t.add(bytes(16)), TypeError),
        (lambda t: t.add(bytes(15), ONE), ValueError),
        (lambda t: t.add(bytes(32), ONE), ValueError),
        (lambda t: t.add(b"", ONE), ValueError),
        (lambda t: t.add(bytes(16), -ONE), ValueError),
        (lambda t: t.add(bytes(32), np.array([5, -1])), ValueError),
        (lambda t: t.add(bytes(16), ONE.astype(np.uint64) << np.uint64(63)), OverflowError),
        (lambda t: t.add(bytes(32), np.array([2**62, 2**62])), OverflowError),
        (lambda t: t.add(bytes(64), np.full(4, 2**62, np.uint64)), OverflowError),
        (lambda t: t.add(bytes(16), np.ones(1)), TypeError),
        (lambda t: t.add(bytes(16), ONE.astype(">i8")), TypeError),
        (lambda t: t.add(bytes(16), ONE.astype("m8[ns]")), (TypeError, ValueError)),
        (lambda t: t.add(bytes(64), np.ones(4, np.int32)), TypeError),
        (lambda t: t.add(bytes(16), bytes(8)), TypeError),
        (lambda t: t.add(bytes(32), np.ones(4, np.int64)[::2]), (BufferError, ValueError)),
        (lambda t: t.add("x" * 16, ONE), TypeError),
        (lambda t: t.frames(0), IndexError),
        (lambda t: t.frames(-1), IndexError),
        (lambda t: t.frames(2**70), IndexError),
        (lambda t: t.frames("0"), TypeError),
        (lambda t: t.merge(1), TypeError),
        (lambda t: t.diff(1), TypeError),
        (lambda t: t.diff(t), ValueError),
        (lambda t: t.diff(t, by="stack"), ValueError),
        (lambda t: t.top(-1), ValueError),
        (lambda t: t.top(1, 2), TypeError),
        (lambda t: t.tree().prune(1.5), ValueError),
        (lambda t: t.tree().prune(float("nan")), ValueError),
        (lambda t: t.tree().prune("1"), TypeError),
        (lambda t: StackTable.merge_all([t, b"PKS"]), ValueError),
        (lambda t: StackTable.merge_all([t, 1]), TypeError),
        (lambda t: StackTable.from_bytes("text"), TypeError),
        (lambda t: StackTable(duration_ns=-1), ValueError),
        (lambda t: StackTable(duration_ns=2**63), OverflowError),
        (lambda t: StackTable(7), TypeError),
        (lambda t: setattr(t, "duration_ns", -1), ValueError),
        (lambda t: setattr(t, "duration_ns", 1.5), TypeError),
        (lambda t: delattr(t, "duration_ns"), AttributeError),
        (lambda t: setattr(t, "total", 1), AttributeError),
        (lambda t: type(t.tree())(), TypeError),
        (lambda t: type("Heir", (StackTable,), {}), TypeError),
        (hash, TypeError),
    ],
)
def test_what_is_wrong_is_refused(call: Callable[[Any], object], error: type[Exception]) -> None:
    """A wrong argument raises the error that the types promise, and changes nothing."""
    table = StackTable()

    with pytest.raises(error):
        call(table)

    assert table == StackTable()


def test_nothing_is_counted_beyond_the_limit() -> None:
    """Beyond 2^63 - 1 there is an error, and what was counted stays."""
    table = make({(MAIN,): 2**63 - 2, (WORK,): 1}, 2**63 - 1)
    refused: list[Callable[[], object]] = [
        lambda: table.record([MAIN]),
        lambda: table.add(table.ids(), np.array([1, 1])),
        lambda: table.merge(make({(READ,): 1})),
        lambda: table.merge(table),
        lambda: table.merge(StackTable(duration_ns=1)),
    ]

    for call in refused:
        with pytest.raises(OverflowError):
            call()

    assert table == make({(MAIN,): 2**63 - 2, (WORK,): 1}, 2**63 - 1)
    assert StackTable.from_bytes(table.to_bytes()) == table
    assert read_nodes(table.tree(), "total")[()] == 2**63 - 1


def test_unknown_ids_are_counted_until_their_frames_come() -> None:
    """Counts may come before stacks: nothing waits, and nothing is lost."""
    agent = make(dict.fromkeys(STACKS, 0))
    table = StackTable()

    table.add(agent.ids(), array.array("Q", STACKS.values()))
    before = (read_counts(table), table.unknown_total, table.tree().fold(), table.top())
    table.merge(agent)

    assert before == ({None: 21}, 21, "[unknown] 21\n", [("[unknown]", "", 21, 21)])
    assert (table == make(STACKS), table.unknown_total) == (True, 0)


def test_count_of_none_adds_no_id() -> None:
    """Ids without counts leave no trace."""
    table = StackTable()

    table.add(bytes(32), np.zeros(2, np.int64))

    assert table.stack_count == 0


@pytest.mark.parametrize("last", [-1, 2**63 - 1])
def test_counts_before_a_wrong_one_are_taken_back(last: int) -> None:
    """However late a wrong count comes, nothing was counted, and no new id stays."""
    table = make(STACKS)
    ids = np.zeros((50_001, 2), np.uint64)
    ids[: 4 * 5000] = np.tile(np.frombuffer(table.ids(), np.uint64).reshape(4, 2), (5000, 1))
    ids[20_000:, 0] = np.arange(30_001)
    counts = np.full(50_001, 7)
    counts[-1] = last

    with pytest.raises((ValueError, OverflowError)):
        table.add(ids, counts)

    assert (table == make(STACKS), table.stack_count) == (True, 4)
    table.add(ids[:-1], counts[:-1])
    assert (table.total, sum(table.counts())) == (21 + 350_000, 21 + 350_000)


def test_ids_chosen_to_meet_do_not_slow_it() -> None:
    """Equal halves of ids are neither one stack nor one place in a table."""
    ids = np.zeros((240_000, 2), np.uint64)
    ids[:120_000, 0] = np.arange(120_000)
    ids[120_000:, 1] = np.arange(1, 120_001) << 44
    table = StackTable()

    begin_s = time.thread_time()
    table.add(ids, np.full(len(ids), 3))
    spent_s = time.thread_time() - begin_s

    assert spent_s < 2  # some 10 s where all have one place
    assert (table.stack_count, table.total) == (240_000, 720_000)
    assert table.ids() == ids.tobytes()
    assert set(table.counts()) == {3}


def test_deep_stacks_are_whole() -> None:
    """A recursion of ten thousand calls is counted, drawn and encoded like any other."""
    deep = (READ, *[WORK] * 10_000, MAIN)
    table = make({deep: 3, deep[1:]: 4})

    tree = table.tree()

    assert StackTable.from_bytes(table.to_bytes()) == table
    assert (tree.node_count, sum(tree.columns()["self"])) == (10_003, 7)
    assert table.top(2) == [("work", "app.py", 4, 7), ("read", "libc.so.6", 3, 3)]
    assert tree.fold() == (
        f"main (app.py);{'work (app.py);' * 9_999}work (app.py) 4\n"
        f"main (app.py);{'work (app.py);' * 10_000}read (libc.so.6) 3\n"
    )


def test_outer_frames_beyond_the_limit_are_one() -> None:
    """Of a million frames the innermost stay, and it is said that there were more."""
    table = StackTable()

    table.record([READ, *[WORK] * 1_000_000])

    frames = table.frames(0) or ()
    assert (len(frames), frames[0], frames[-2:]) == (16_384, READ, (WORK, ("[truncated]", "")))
    assert table.total == 1


def test_empty_stack_counts_at_the_root() -> None:
    """A sample without frames is in all sums."""
    table = make({(): 3, (MAIN,): 4})

    assert read_nodes(table.tree(), "self") == {(): 3, (MAIN,): 4}
    assert table.tree().fold() == "(all) 3\nmain (app.py) 4\n"
    assert table.top() == [("main", "app.py", 4, 4), (*ALL, 3, 3)]


def test_own_frames_are_frames_like_others() -> None:
    """A host that names its functions as we do ours confuses no sums."""
    table = make({(OTHER, MAIN): 2, (UNKNOWN,): 3, (ALL,): 4, (WORK, OTHER, MAIN): 5, (MAIN,): 9})
    table.add(bytes(16), ONE)

    tree = table.tree()

    assert read_nodes(tree, "total")[(UNKNOWN,)] == 4
    assert read_nodes(tree.prune(0.5), "total") == {
        (): 24, (MAIN,): 16, (MAIN, OTHER): 7, (OTHER,): 8,
    }  # fmt: skip


def test_pruned_tree_keeps_what_is_large() -> None:
    """Small nodes become one below their parent, and a second time changes nothing."""
    tree = make(STACKS).tree()

    pruned = tree.prune(0.2)

    assert read_nodes(pruned, "total") == {
        (): 21, (MAIN,): 21, (MAIN, WORK): 18, (MAIN, WORK, READ): 13, (MAIN, OTHER): 1,
    }  # fmt: skip
    assert pruned.prune(0.2).fold() == pruned.fold()
    assert tree.prune(0).fold() == tree.fold()
    assert sum(tree.prune(1).columns()["self"]) == 21


def test_difference_is_told_per_second() -> None:
    """Profiles of unequal durations are compared by their rates."""
    earlier = make({(MAIN,): 100, (WORK, MAIN): 200}, 10 * 10**9)
    later = make({(MAIN,): 10, (READ, MAIN): 40}, 2 * 10**9)

    tree = later.diff(earlier)

    assert read_nodes(tree, "change") == {
        (): -5.0, (MAIN,): -5.0, (MAIN, READ): 20.0, (MAIN, WORK): -20.0,
    }  # fmt: skip
    assert read_nodes(tree, "total")[()] == 50
    assert read_nodes(tree, "earlier_total")[()] == 300
    assert tree.fold() == (
        "main (app.py) 20 10\n"
        "main (app.py);read (libc.so.6) 0 40\n"
        "main (app.py);work (app.py) 40 0\n"
    )


def test_difference_can_be_told_by_shares() -> None:
    """Without durations each profile's whole is the measure; nothing has no share."""
    earlier, later = make({(MAIN,): 1, (WORK,): 3}), make({(MAIN,): 30, (WORK,): 10})

    changes = read_nodes(later.diff(earlier, by="total"), "change")

    assert changes == {(): 0.0, (MAIN,): 0.5, (WORK,): -0.5}
    assert read_nodes(later.diff(StackTable(), by="total"), "change")[()] == 1.0
    assert StackTable().diff(StackTable(), by="total").fold() == ""


def test_difference_with_itself_is_nothing() -> None:
    """The same profile twice has not changed anywhere."""
    table = make(STACKS, 5)

    columns = table.diff(table).columns()

    assert set(columns["change"]) == {0.0}
    assert columns["self"].tolist() == columns["earlier_self"].tolist()


def test_difference_that_is_too_large_to_scale_is_refused() -> None:
    """Counts that do not fit their column any more are no text."""
    earlier, later = make({(MAIN,): 2**62}, 1), make({(MAIN,): 1}, 2**62)

    with pytest.raises(OverflowError):
        later.diff(earlier).fold()


def test_folded_lines_cannot_be_forged() -> None:
    """What separates frames and lines is no part of a name."""
    table = make({(("a;b\nc 7", "x;\x7f\x00"),): 2})

    assert table.tree().fold() == "a:b?c 7 (x:??) 2\n"


def test_folded_text_has_a_limit() -> None:
    """A few bytes cannot become a text that fills the memory."""
    table = make({(("x" * 65_535, ""),) * 16_384: 1, (("x" * 65_535, ""),) * 16_383: 1})

    with pytest.raises(OverflowError, match="prune"):
        table.tree().fold()

    assert len(table.to_bytes()) < 200_000


def test_merging_adds_counts_and_durations() -> None:
    """Hosts' profiles become one, in objects or in bytes, and a table can be added to itself."""
    one, two = make(STACKS, 10), make({(READ,): 8, (MAIN,): 1}, 5)

    merged = StackTable.merge_all([one, two.to_bytes(), memoryview(one.to_bytes())])
    one.merge(one)
    one.merge(two)

    assert merged == one
    assert read_counts(merged) == {
        **{stack: 2 * count for stack, count in STACKS.items()}, (MAIN,): 5, (READ,): 8,
    }  # fmt: skip
    assert (merged.duration_ns, merged.total) == (25, 51)
    assert StackTable.merge_all([]) == StackTable()


def test_equality_asks_for_everything() -> None:
    """Counts, stacks, what is known of them, and the duration."""
    table = make(STACKS, 10)
    others = [make(STACKS, 9), make({**STACKS, (MAIN,): 3}, 10), make({**STACKS, (): 0}, 10)]
    unknown = StackTable(duration_ns=10)
    unknown.add(table.ids(), table.counts())

    assert [table == one for one in [*others, unknown, make(STACKS, 10)]] == [False] * 4 + [True]
    assert table != 5


def test_pickles_come_back() -> None:
    """A table can be sent to another process."""
    table = make(STACKS, 10)

    assert pickle.loads(pickle.dumps(table)) == table


def test_duration_can_be_set_at_the_end() -> None:
    """An agent knows how long it has counted when it is done."""
    table = make(STACKS)

    table.duration_ns = 7

    assert table == make(STACKS, 7)


def use_for_long(table: StackTable, started: threading.Event, ended: threading.Event) -> None:
    """Counts a million ids."""
    ids = np.random.default_rng(1).integers(0, 50_000, 4_000_000).astype(np.uint64)
    ids, counts = np.column_stack([ids, ids]), np.ones(len(ids), np.int64)
    started.set()
    table.add(ids, counts)
    ended.set()


def test_threads_run_while_ids_are_counted() -> None:
    """Counting lets go of the GIL; whoever uses the table meanwhile is told, and nothing breaks."""
    table, started, ended = StackTable(), threading.Event(), threading.Event()
    thread = threading.Thread(target=use_for_long, args=(table, started, ended))
    thread.start()
    started.wait()

    refused = turns = 0
    while not ended.is_set():
        turns += 1
        try:
            table.record([MAIN], 0)
        except RuntimeError:
            refused += 1
    thread.join()

    assert (refused > 0, turns > 1) == (True, True)
    assert table.total == 4_000_000
    assert table.stack_count - 50_000 in (0, 1)


def test_two_threads_count_beside_each_other() -> None:
    """Tables of their own are merged afterwards, and each count is there."""
    tables = [StackTable(), StackTable()]
    events = (threading.Event(), threading.Event())
    threads = [threading.Thread(target=use_for_long, args=(one, *events)) for one in tables]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    merged = StackTable.merge_all(tables)
    assert (merged.total, merged.stack_count) == (8_000_000, 50_000)
    assert merged.counts().tolist() == [2 * count for count in tables[0].counts()]


def test_counts_that_change_meanwhile_break_nothing() -> None:
    """Buffers that are written while they are read give some count, never a wrong sum."""
    ids, counts = np.zeros((2_000_000, 2), np.uint64), np.ones(2_000_000, np.int64)
    table, done = StackTable(), threading.Event()

    def scribble() -> None:
        while not done.is_set():
            ids[::5] = 7
            counts[::7] = 3
            ids[::5] = 0
            counts[::7] = -5

    thread = threading.Thread(target=scribble)
    thread.start()
    for _ in range(10):
        try:
            table.add(ids, counts)
        except (ValueError, OverflowError):
            continue
    done.set()
    thread.join()

    assert sum(table.counts()) == table.total >= 0


def use_all() -> None:
    """Makes, fills, reads and drops tables in every way there is."""
    table = make({**STACKS, tuple((f"f{i}", "") for i in range(200)): 1}, 3)
    table.add(bytes(range(160)), np.arange(10))
    other = StackTable.from_bytes(table.to_bytes())
    other.merge(table)
    StackTable.merge_all([table, other.to_bytes(), table]).top(3)
    tree = other.diff(table)
    repr((tree.prune(0.1).fold(), tree.columns(), tree.frames(), tree.node_count, tree, table))
    repr((table.frames(0), table.ids(), table.counts(), table == other))
    for wrong in (b"PKS", table.to_bytes()[:-1], table.to_bytes() + b"\0"):
        with pytest.raises(ValueError, match="no StackTable"):
            StackTable.from_bytes(wrong)
    with pytest.raises(TypeError):
        table.record([MAIN, None])  # type: ignore[list-item]


def test_nothing_leaks() -> None:
    """Memory is flat, however many tables come and go."""
    for _ in range(100):
        use_all()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for _ in range(1000):
        use_all()

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3000
