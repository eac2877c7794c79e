"""One allowance holds for all of perfkit: what is spent beside the samplers is taken from them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perfkit.allowance import REST_RATIO, WHOLE_RATIO, Allowance, Want, share_out

LIMIT_RATIO = 0.03
SECOND_NS = 10**9
WANTS = {
    "quick": Want(start_ratio=0.006, ratio_min=0.0025, ratio_max=0.02, weight=4),
    "steady": Want(start_ratio=0.006, ratio_min=0.0035, ratio_max=0.012, weight=5),
    "slow": Want(start_ratio=0.004, ratio_min=0.001, ratio_max=0.005, weight=3),
}


class Simulated:
    """A recording whose samplers take what they get, beside a rest that takes what it likes."""

    def __init__(self, rest_ratio: Callable[[float], float], full_ratio: float = 1.0) -> None:
        self.now_ns = self.rest_ns = 0
        self.spent_ns = dict.fromkeys(WANTS, 0)
        self.ratios = {name: want.start_ratio for name, want in WANTS.items()}
        self._rest_ratio, self._full_ratio = rest_ratio, full_ratio
        self.allowance = Allowance(lambda: self.whole_ns, lambda: self.now_ns)

    @property
    def whole_ns(self) -> int:
        """What all have spent so far."""
        return self.rest_ns + sum(self.spent_ns.values())

    def run(self, seconds: int) -> float:
        """Lets a window pass in tenths of a second; gives what it cost of a core."""
        self.allowance.begin(0, seconds)
        for tenth in range(10 * seconds):
            for place, name in enumerate(WANTS):
                if tenth % 10 == 3 * place:
                    self._ask(name)
            self._pass()
        return self.whole_ns / self.now_ns

    def _ask(self, name: str) -> None:
        is_full = self.ratios[name] >= self._full_ratio
        self.ratios[name] = self.allowance.share(
            name, WANTS[name], self.spent_ns[name], is_full=is_full
        )

    def _pass(self) -> None:
        for name, ratio in self.ratios.items():
            self.spent_ns[name] += int(min(ratio, self._full_ratio) * SECOND_NS / 10)
        self.rest_ns += int(self._rest_ratio(self.now_ns / SECOND_NS) * SECOND_NS / 10)
        self.now_ns += SECOND_NS // 10


@pytest.mark.parametrize(
    "rest_ratio",
    [
        pytest.param(lambda _: 0.0, id="nothing beside"),
        pytest.param(lambda _: REST_RATIO, id="as expected"),
        pytest.param(lambda _: 0.02, id="dear"),
        pytest.param(lambda at_s: 0.06 if at_s < 1 else 0.012, id="dear at first"),
        pytest.param(lambda at_s: 0.27 if 3.95 < at_s < 4.05 else 0.012, id="27 ms at once"),
        pytest.param(lambda at_s: 0.008 if at_s < 5 else 0.02, id="dearer later"),
    ],
)
def test_whole_stays_below_the_limit_whatever_the_rest_takes(
    rest_ratio: Callable[[float], float],
) -> None:
    """Over ten seconds all together take the whole and no more, however the rest behaves."""
    whole_ratio = Simulated(rest_ratio).run(10)

    assert 0.94 * WHOLE_RATIO < whole_ratio < LIMIT_RATIO


def test_samplers_keep_their_least_where_the_rest_takes_all() -> None:
    """A rest that alone takes more than the whole leaves each sampler its least, not nothing."""
    recording = Simulated(lambda _: 0.05)

    recording.run(10)

    assert recording.ratios == {name: want.ratio_min for name, want in WANTS.items()}


def test_whole_holds_for_a_long_window_too() -> None:
    """What came up a minute ago is not saved up for: the mean is that of the whole."""
    whole_ratio = Simulated(lambda at_s: 0.02 if at_s < 30 else 0.01).run(120)

    assert whole_ratio == pytest.approx(WHOLE_RATIO, rel=0.03)


def test_what_a_full_sampler_does_not_need_goes_to_the_others() -> None:
    """A sampler at its full rate keeps what it uses and a margin; the rest is for the others."""
    moments = [0]
    allowance = Allowance(lambda: moments[-1] // 100, lambda: moments[-1])
    allowance.begin(0, 10)
    steady, quick = WANTS["steady"], WANTS["quick"]
    for second in range(4):
        moments.append(second * SECOND_NS)
        sparing = allowance.share("steady", steady, second * 4_000_000, is_full=True)
        other = allowance.share("quick", quick, second * 6_000_000, is_full=False)

    assert sparing == pytest.approx(0.005)
    assert other == quick.ratio_max


def test_a_sampler_that_no_longer_asks_leaves_its_part() -> None:
    """Six seconds after a sampler last asked, its part goes to those that still do."""
    moments = [0]
    allowance = Allowance(lambda: moments[-1] // 44, lambda: moments[-1])
    allowance.begin(0, 60)
    allowance.share("steady", WANTS["steady"], 0, is_full=False)
    shares = []
    for second in range(1, 9):
        moments.append(second * SECOND_NS)
        shares.append(allowance.share("quick", WANTS["quick"], second * 10**7, is_full=False))

    assert shares[2] < 0.015
    assert shares[-1] == WANTS["quick"].ratio_max


@pytest.mark.parametrize(
    ("left_ratio", "shares"),
    [
        (-0.01, {"quick": 0.0025, "steady": 0.0035, "slow": 0.001}),
        (0.007, {"quick": 0.0025, "steady": 0.0035, "slow": 0.001}),
        (0.0142, {"quick": 0.0049, "steady": 0.0065, "slow": 0.0028}),
        (0.0286, {"quick": 0.0116, "steady": 0.012, "slow": 0.005}),
        (0.1, {"quick": 0.02, "steady": 0.012, "slow": 0.005}),
    ],
)
def test_what_is_left_is_shared_by_weight_within_bounds(
    left_ratio: float, shares: dict[str, float]
) -> None:
    """Each gets its least, then by weight, and what is too much for one goes to the others."""
    assert share_out(left_ratio, WANTS) == pytest.approx(shares)
