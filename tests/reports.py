"""Hand-made reports of every verdict state, and one whose every name is hostile."""

from __future__ import annotations

from msgspec.structs import replace

from perfkit.findings import (
    SCHEMA,
    Budget,
    BudgetRow,
    CostSummary,
    Culprit,
    Evidence,
    Finding,
    Rejection,
    Report,
    Skip,
    TargetSummary,
    Verdict,
    Window,
)

RUN = "20261123-031240-shard-7-4821"
HOSTILE = (
    "\x1b[31mred\x1b]0;title\x07\r\nSaved    forged\u202e\u2066 | `code` <b>&amp; "
    "[x](http://evil.example) @all # *bold* \x85\x9b\x7f\x00 $(reboot) \U0001f600"
)

THROTTLED = Finding(
    id="cpu_throttled",
    family="cpu",
    title="The CPU quota of /shards/7 stops the service",
    severity="crit",
    confidence=0.94,
    share=0.62,
    share_low=0.55,
    share_high=0.683,
    share_of="busy",
    share_ledger="requests",
    culprit=Culprit("cgroup", "/shards/7"),
    evidence=(
        Evidence("periods throttled", 0.38, 0.0, "ratio", "cpu.stat /shards/7: +38/100 periods"),
        Evidence("time throttled, summed over CPUs", 0.212, 0.0, "s/s", "cpu.stat /shards/7"),
        Evidence("CPUs allowed", 4.0, None, "CPUs", "cpu quota / period"),
        Evidence("CPUs used by the service", 3.98, None, "CPUs", "schedstat"),
    ),
    fix="raise the CPU limit of the cgroup (Kubernetes: resources.limits.cpu; systemd:\n"
    "CPUQuota=; cgroup v2: cpu.max), or use fewer threads than CPUs allowed",
    verify="perfkit diagnose . --pid 4821",
)
GIL = Finding(
    id="gil_contention",
    family="python",
    title="Thread indexer holds the GIL",
    severity="warn",
    confidence=0.41,
    share=0.12,
    share_low=0.08,
    share_high=0.16,
    share_of="busy",
    share_ledger="threads",
    culprit=Culprit("thread", "indexer"),
    evidence=(Evidence("gil_wait_seconds", 0.14, 0.0, "s/s", "futex waits in _PyRuntime"),),
    fix="move the work of the thread indexer into a process of its own",
    verify="perfkit diagnose . --pid 4821",
)
SLOW_PEER = Finding(
    id="downstream_slow",
    family="network",
    title="127.0.0.1:40123 answers late, x12.4 of its like",
    severity="crit",
    confidence=0.6,
    share=0.71,
    share_low=0.66,
    share_high=0.75,
    share_of="busy",
    share_ledger="requests",
    culprit=Culprit("peer", "127.0.0.1:40123"),
    evidence=(
        Evidence("mean wait for an answer", 25.3, 2.04, "ms", "TCP_INFO ages, 3 like peers"),
        Evidence("answers in the window", 398, None, "", "TCP_INFO segments"),
    ),
    tie_with=("network_latency",),
    fix="look at 127.0.0.1:40123: run perfkit diagnose on the host that serves it",
    verify="perfkit diagnose . --pid 4821",
)
RULED_OUT = (
    Rejection(
        "gil_contention",
        "share of time waiting for the GIL",
        0.004,
        0.05,
        "ratio",
        "futex waits in _PyRuntime",
        "the GIL is free when it is asked for",
    ),
    Rejection(
        "downstream_slow",
        "wait per answer of 127.0.0.1:40123 against its like",
        1.08,
        3.0,
        "x",
        "TCP_INFO ages",
        "2.04 ms, the 3 others 1.98 ms",
    ),
    Rejection(
        "cpu_contention_neighbour",
        "share of time runnable outside throttled spans",
        0.011,
        0.05,
        "ratio",
        "schedstat run_delay, cpu.stat",
        "its threads wait for the quota",
    ),
)
NOT_CHECKED = (
    Skip(
        "requests on short connections",
        "the TCP_DESTROY group was refused",
        "CAP_NET_ADMIN",
    ),
    Skip("pressure", "/proc/pressure: no such file or directory"),
)
BUDGET = Budget(
    requests=(
        BudgetRow("throttled", "/shards/7", 19.9, 0.62),
        BudgetRow("on CPU", "", 7.06, 0.22),
        BudgetRow("waiting for a peer", "127.0.0.1:40123", 3.21, 0.1),
        BudgetRow("disk I/O", "/srv/model.bin", 1.28, 0.04),
        BudgetRow("unknown", "", 0.641, 0.02),
    ),
    threads=(
        BudgetRow("throttled", "/shards/7", 15.2, 0.6),
        BudgetRow("on CPU", "", 10.1, 0.4),
    ),
    in_flight_mean=3.21,
    answers_per_second=39.8,
    latency_mean_ms=80.6,
    busy_threads_mean=2.53,
)
CAUSE = Report(
    schema=SCHEMA,
    perfkit_version="0.1.0",
    run=RUN,
    host="host-123",
    target=TargetSummary(
        "service", "shard-7", 4821, (4821, 4822, 4823), ("127.0.0.1:8080",), "named with --pid"
    ),
    window=Window("2026-11-23T03:12:40.123Z", "2026-11-23T03:12:50.125Z", 10.002, 10.0),
    verdict=Verdict("cause", "The CPU quota of /shards/7 stops the service"),
    causes=(THROTTLED, GIL),
    unexplained_share=0.02,
    footnotes=(),
    ruled_out=RULED_OUT[1:],
    not_checked=NOT_CHECKED,
    budget=BUDGET,
    cost=CostSummary(1.42, 0.21, 38.2, 0.001, {"threads": 99.6, "sockets": 19.9}),
)
TIE = replace(
    CAUSE,
    verdict=Verdict("cause", "127.0.0.1:40123 answers late (tied with network_latency)"),
    causes=(SLOW_PEER,),
    ruled_out=RULED_OUT[:1],
)
HEALTHY = replace(
    CAUSE,
    verdict=Verdict("healthy", "Nothing unusual."),
    causes=(),
    unexplained_share=0.0,
    ruled_out=RULED_OUT,
    target=replace(CAUSE.target, chosen_by="busiest of 3 serving services: 41 % of a core"),
)
IDLE = replace(
    HEALTHY,
    verdict=Verdict("idle", "Idle: no requests, and its threads do nothing."),
    budget=Budget(in_flight_mean=0.0, answers_per_second=0.0, busy_threads_mean=0.0),
    not_checked=(),
)
UNEXPLAINED = replace(
    HEALTHY,
    verdict=Verdict(
        "unexplained",
        "No cause found: 44 % of the time is spent waiting for a lock, reason not proven.",
    ),
    unexplained_share=0.44,
)
INSUFFICIENT = replace(
    HEALTHY,
    verdict=Verdict("insufficient", "Only 1.2 s were observed; 2 s is the least."),
    window=replace(CAUSE.window, seconds=1.2, interrupted="stopped after 1.2 of 10 s"),
    footnotes=("threads: 400 of 1000 ticks missed, 60 Hz instead of 100.",),
    ruled_out=(),
    run="",
)
STATES = {
    "cause": CAUSE,
    "tie": TIE,
    "healthy": HEALTHY,
    "idle": IDLE,
    "unexplained": UNEXPLAINED,
    "insufficient": INSUFFICIENT,
}
_HOSTILE_FINDING = replace(
    THROTTLED,
    title=f"The quota of {HOSTILE}",
    culprit=Culprit("cgroup", HOSTILE),
    evidence=(Evidence(HOSTILE, 0.3, 0.0, HOSTILE, HOSTILE),),
    against=(Evidence(HOSTILE, 0.3, None, "ratio", HOSTILE),),
    tie_with=(HOSTILE,),
    fix=f"ask {HOSTILE}\n$ echo {HOSTILE}",
)
EVIL = replace(
    CAUSE,
    run=HOSTILE,
    host=HOSTILE,
    target=TargetSummary("service", HOSTILE, 1, (1,), (HOSTILE, HOSTILE), HOSTILE),
    window=replace(CAUSE.window, start=HOSTILE, interrupted=HOSTILE),
    verdict=Verdict("cause", HOSTILE),
    causes=(_HOSTILE_FINDING,) * 5,
    footnotes=(HOSTILE,) * 9,
    ruled_out=(Rejection(HOSTILE, HOSTILE, 1, 1, HOSTILE, HOSTILE, HOSTILE),) * 9,
    not_checked=(Skip(HOSTILE, HOSTILE, HOSTILE),) * 9,
    budget=replace(BUDGET, requests=(BudgetRow(HOSTILE, HOSTILE * 99, 1.0, 0.5),) * 9),
)
