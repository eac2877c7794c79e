"""Is a socket waiting for an answer? Told from the ages and counts of its segments.

On an accepted socket the client asks and the service answers; on an outgoing one the service asks
and the peer answers. Whoever spoke last tells: asked last = an answer is pending. The kernel's ages
tick in jiffies, so only a strict comparison decides. Equal ages (ties) are resolved, in this order,
by acknowledgements, by what a thread does with the socket, by near misses (which kind of row comes
within one jiffy of a tie), and by segment counts (docs/decisions/0020-ties-of-ages.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from perfkit.analysis.columns import Frame, Integers, Masks, Reals

PENDING, SETTLED, UNDETERMINED = 1, 0, -1
# FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, LAST_ACK, CLOSING (include/net/tcp_states.h, Linux 6.18).
CLOSED_BY_US = (4, 5, 6, 7, 9, 11)
SEGMENTS_PER_MESSAGE_MAX = 16
TRANSITIONS_NEEDED = 3
MULTIPLE_RATIO_NEEDED = 0.85
# A count of pending answers this near to one half decides nothing.
UNDECIDED_MARGIN = 0.2
NEAR_MISSES_NEEDED = 3
NEAR_MISSES_RATIO = 4


@dataclass(frozen=True)
class Exchanges:
    """The polls of some sockets of one role, by (socket, time), as questions and answers.

    `asked` and `answered` are segment counts since the socket was opened.
    """

    socket: Integers
    begin: Integers
    end: Integers
    asked: Integers
    answered: Integers
    asked_age: Integers
    answered_age: Integers
    unread: Integers
    unacked: Integers
    ack_age: Integers
    asked_by_peer: bool

    def same_socket_as_before(self) -> Masks:
        """For each row, whether the row before it is of the same socket."""
        same = np.zeros(len(self.socket), dtype=bool)
        same[1:] = self.socket[1:] == self.socket[:-1]
        return same


def read_exchanges(runs: Frame, *, asked_by_peer: bool) -> Exchanges:
    """Sees `socket_runs` rows as exchanges; `asked_by_peer` for accepted sockets.

    An accepted socket that the service has closed holds no request, however long the peer keeps it.
    """
    runs = runs.sorted_by("socket_index", "start_ns")
    if asked_by_peer:
        runs = runs.where(~np.isin(runs.integers("state"), CLOSED_BY_US))
    incoming = (runs.integers("data_segments_in"), runs.integers("last_received_ms"))
    outgoing = (runs.integers("data_segments_out"), runs.integers("last_sent_ms"))
    asked, answered = (incoming, outgoing) if asked_by_peer else (outgoing, incoming)
    return Exchanges(
        runs.integers("socket_index"),
        runs.integers("start_ns"),
        runs.integers("end_ns"),
        asked[0],
        answered[0],
        asked[1],
        answered[1],
        runs.integers("receive_queue_bytes"),
        runs.integers("unacked"),
        runs.integers("last_ack_received_ms"),
        asked_by_peer,
    )


@dataclass(frozen=True)
class Lengths:
    """Mean segments per question and per answer, and how much answers vary (relative deviation)."""

    question: float
    answer: float
    answer_spread: float


def message_lengths(rows: Exchanges) -> Lengths:
    """How long messages are: questions from clear transitions, answers by the long run's ratio."""
    clear = strict_states(rows)
    same = rows.same_socket_as_before()
    asked = np.diff(rows.asked, prepend=rows.asked[:1])
    answered = np.diff(rows.answered, prepend=rows.answered[:1])
    before = np.roll(clear, 1)
    began = same & (before == SETTLED) & (clear == PENDING) & (answered == 0) & (asked > 0)
    question = _question_length(asked[began], asked[same & (asked > 0)])
    return Lengths(question, *_answer_length(asked[same] / question, answered[same]))


def strict_states(rows: Exchanges) -> Integers:
    """What the ages alone say of each row."""
    state = np.full(len(rows.socket), UNDETERMINED, dtype=np.int64)
    state[rows.asked_age < rows.answered_age] = PENDING
    state[rows.asked_age > rows.answered_age] = SETTLED
    never_asked = (rows.asked == 0) & (rows.unread <= 0)
    state[never_asked] = SETTLED
    state[(rows.answered == 0) & (rows.asked > 0)] = PENDING
    return state


def acknowledged_states(rows: Exchanges, decided: Integers) -> Integers:
    """Settles ties by acknowledgements: ours that is out, or came after the peer's last data.

    Either way the service spoke last: on an accepted socket it has answered, on an outgoing one
    it has asked.
    """
    spoke_last = (rows.unacked > 0) | ((rows.ack_age >= 0) & (rows.ack_age < _peer_age(rows)))
    state = decided.copy()
    tied = (decided == UNDETERMINED) & spoke_last
    state[tied] = SETTLED if rows.asked_by_peer else PENDING
    return state


def near_miss_states(rows: Exchanges, decided: Integers) -> Integers:
    """Settles ties by their near misses: rows whose ages are just one jiffy apart.

    A tie needs either a question right after an answer (then it is pending) or an answer right
    after its question (then it is settled). Whichever kind nearly all near misses are, ties are.
    """
    apart = rows.asked_age - rows.answered_age
    known = (rows.answered > 0) & (rows.asked > 0)
    gaps = np.abs(apart[known & (apart != 0)])
    if not len(gaps):
        return decided
    near = known & (np.abs(apart) == gaps.min())
    pending = int((near & (decided == PENDING) & (apart < 0)).sum())
    settled = int((near & (decided == SETTLED) & (apart > 0)).sum())
    state = decided.copy()
    for kind, count, others in ((PENDING, pending, settled), (SETTLED, settled, pending)):
        if count >= NEAR_MISSES_NEEDED and count >= NEAR_MISSES_RATIO * others:
            state[decided == UNDETERMINED] = kind
    return state


def counted_states(rows: Exchanges, decided: Integers) -> Integers:
    """Settles the rows that are left, by segment counts against clear rows.

    The nearest clear row of the same socket is the base: since it, every question adds one pending
    answer and every answer takes one away. Sockets without a clear row count from their opening.
    """
    lengths = message_lengths(rows)
    state = decided.copy()
    open_rows = np.flatnonzero(decided == UNDETERMINED)
    base = _nearest_clear(rows, decided)[open_rows]
    known = base >= 0
    zero = np.zeros(len(open_rows), dtype=np.int64)
    questions = rows.asked[open_rows] - np.where(known, rows.asked[base], zero)
    answers = rows.answered[open_rows] - np.where(known, rows.answered[base], zero)
    count = np.where(known, decided[base], zero) + questions / lengths.question
    count = count - answers / lengths.answer
    drift = 2 * lengths.answer_spread * np.sqrt(np.abs(answers) / lengths.answer)
    unsure = np.abs(count - 0.5) < UNDECIDED_MARGIN + drift
    settled = np.where(count > 0.5, PENDING, SETTLED)
    state[open_rows] = np.where(unsure, UNDETERMINED, settled)
    return state


def _peer_age(rows: Exchanges) -> Integers:
    return rows.asked_age if rows.asked_by_peer else rows.answered_age


def streamed_states(rows: Exchanges, decided: Integers) -> Integers:
    """An answer in pieces is pending until its last: what looked settled, and then goes on."""
    state = decided.copy()
    same_next = np.append(rows.same_socket_as_before()[1:], False)
    goes_on = same_next & (np.roll(rows.asked, -1) == rows.asked) & (rows.asked > 0)
    goes_on &= np.roll(rows.answered, -1) > rows.answered
    state[goes_on & (decided == SETTLED)] = PENDING
    return state


def one_way(rows: Exchanges) -> Masks:
    """Marks the rows of sockets on which one side only talks: no question, so nothing pending."""
    marked = np.zeros(len(rows.socket), dtype=bool)
    for first, last in _socket_slices(rows.socket):
        asked = rows.asked[last - 1] - rows.asked[first]
        answered = rows.answered[last - 1] - rows.answered[first]
        silent = min(asked, answered) == 0
        marked[first:last] = silent and max(asked, answered) >= TRANSITIONS_NEEDED
    return marked


def _question_length(transitions: Integers, steps: Integers) -> float:
    if len(transitions) >= TRANSITIONS_NEEDED:
        return max(1.0, float(np.median(transitions)))
    for length in range(SEGMENTS_PER_MESSAGE_MAX, 1, -1):
        multiples = float(np.mean(steps % length == 0)) if len(steps) else 0.0
        if multiples >= MULTIPLE_RATIO_NEEDED and len(set(steps.tolist())) > 1:
            return float(length)
    return 1.0


def _answer_length(questions: Reals, answered: Integers) -> tuple[float, float]:
    """Mean segments per answer by the long run's ratio, and their relative deviation.

    Answers of one constant length grow the count by multiples of it; others vary by what is left
    between the growth and the number of questions.
    """
    if questions.sum() < 1 or answered.sum() < 1:
        return 1.0, 0.0
    length = max(1.0, float(answered.sum() / questions.sum()))
    grown = answered[answered > 0]
    whole = max(1, round(length))
    if np.mean(grown % whole == 0) >= MULTIPLE_RATIO_NEEDED:
        return float(whole), 0.0
    some = questions > 0
    left = (answered[some] - length * questions[some]) / np.sqrt(questions[some])
    return length, min(1.0, float(np.std(left)) / length)


def _nearest_clear(rows: Exchanges, decided: Integers) -> Integers:
    """For each row the index of the nearest decided row of the same socket, or -1."""
    count = len(rows.socket)
    index = np.arange(count)
    clear = decided != UNDETERMINED
    before = np.maximum.accumulate(np.where(clear, index, -1))
    after = np.minimum.accumulate(np.where(clear, index, count)[::-1])[::-1]
    reach_before = _distance(rows, index, before)
    reach_after = _distance(rows, index, after)
    best = np.where(reach_before <= reach_after, before, after)
    return np.where(np.minimum(reach_before, reach_after) < count, best, -1)


def _distance(rows: Exchanges, index: Integers, other: Integers) -> Integers:
    count = len(rows.socket)
    inside = (other >= 0) & (other < count)
    same = np.zeros(count, dtype=bool)
    same[inside] = rows.socket[index[inside]] == rows.socket[other[inside]]
    return np.where(same, np.abs(index - other), count)


def _socket_slices(socket: Integers) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(socket)) + 1
    bounds = [0, *edges.tolist(), len(socket)]
    return [(first, last) for first, last in pairwise(bounds) if last > first]


def grown(socket: Integers, counter: Integers) -> int:
    """How much a counter grew, summed over sockets (rows sorted by socket and time)."""
    same = socket[1:] == socket[:-1]
    return int(np.maximum(np.diff(counter), 0)[same].sum())


def answers_between(rows: Exchanges, per_question: float) -> tuple[Integers, Integers, Reals]:
    """Questions that came in between successive rows, as (begin, end, count) of each gap."""
    same = rows.same_socket_as_before()
    same[:1] = False
    index = np.flatnonzero(same)
    count = (rows.asked[index] - rows.asked[index - 1]) / per_question
    return rows.end[index - 1], rows.begin[index], np.maximum(count, 0.0)
