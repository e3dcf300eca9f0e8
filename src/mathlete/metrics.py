"""Scores with their uncertainty, and how both are written. Each formula names its source and shows a worked example.

All scores are fractions, 0 to 1. An answer that cannot be judged never counts as right. Intervals are over problems,
never over samples: samples of one problem are not independent of each other.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal

_Z95 = 1.959963984540054
"""97.5% point of the standard normal distribution."""
_Z80 = 0.8416212335729143
"""Its 80% point."""
_RESAMPLES = 10_000
_FEWEST_RESAMPLES = 1000
_RESAMPLED = 10_000_000
"""Values drawn for an interval, all resamples together, where that leaves _FEWEST_RESAMPLES."""
_EXACT_SIGNS = 14
"""Problems that differ up to which `paired_p` tries all sign vectors: 2^14 of them."""

INFORMATIVE = 10
"""Problems that must inform a change, a finish-order bias, a standard error or a sample size: fewer claim nothing. It
is the usual condition for a normal approximation of a share, at least ten on either side."""
SIGNIFICANT = 0.05
"""p-value below which a difference counts as shown."""
FEWEST_SIGNS = 6
"""Problems below which `paired_p` shows nothing: five that all change one way have a p of 2/2^5."""
_FEWEST_LOSSES = 3
"""Problems whose losses show a change."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A score and its 95% interval."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True, kw_only=True)
class PairedChange(Interval):
    """A difference on the same problems, its paired 95% interval, and what an exact test says beside that.

    >>> [PairedChange(value=-1.0, lo=-1.0, hi=-1.0, p=p).is_shown for p in (1.0, 0.03)]
    [False, True]
    >>> PairedChange(value=math.nan, lo=math.nan, hi=math.nan).is_shown
    False
    """

    p: float | None = None
    """Two-sided, of the sign-flip test over problems; None in a file of an earlier version, and for no number."""

    @property
    def is_shown(self) -> bool:
        """Whether it is a number and no chance: the interval leaves out 0, and the exact test says so too.

        The bootstrap knows no problem but those it was given: of one that changed its interval is that change alone.
        """
        return self.leaves_out_0 and (self.p is None or self.p < SIGNIFICANT)

    @property
    def leaves_out_0(self) -> bool:
        """Whether it is a number whose interval leaves out 0."""
        return math.isfinite(self.value) and not self.lo <= 0 <= self.hi

    def shows_loss(self, *, problems: int) -> bool:
        """Return whether this change of losses over so many problems is no chance: the interval alone says it.

        The exact test is of values that are right or wrong. A loss is a mean over hundreds of tokens: of three problems
        that all lose 8 nats a token none did by chance, of which the signs alone give a p of 0.25.

        >>> [PairedChange(value=8.0, lo=7.9, hi=8.1, p=1.0).shows_loss(problems=number) for number in (2, 3)]
        [False, True]
        """
        return self.leaves_out_0 and problems >= _FEWEST_LOSSES


Verdict = Literal["better", "worse", "few", "even"]
"""What a paired change shows; few: its interval leaves out 0, but too few problems differ to rely on it."""


def judge_change(change: Interval, *, differing: int | None) -> Verdict:
    """Return what a paired change shows: the one rule of all that says better or worse by an interval over problems.

    The bootstrap calls four gains among a hundred problems sure, where the exact test gives them a p of 0.125: so
    problems that differ must be `INFORMATIVE` or more. None is of a file that did not count them.

    >>> gain = Interval(value=0.5, lo=0.1, hi=0.9)
    >>> [judge_change(gain, differing=number) for number in (INFORMATIVE, 9, None)]
    ['better', 'few', 'better']
    >>> judge_change(Interval(value=0.5, lo=0.0, hi=0.9), differing=40)
    'even'
    """
    if change.lo <= 0 <= change.hi:
        return "even"
    if differing is not None and differing < INFORMATIVE:
        return "few"
    return "better" if change.lo > 0 else "worse"


def pass_at_k(*, n: int, right: int, k: int) -> float:
    """Return the probability that one of k samples or more is right, unbiased from n ≥ k samples of which `right` are.

    1 - C(n-c, k) / C(n, k). Source: Chen et al. 2021, "Evaluating large language models trained on code",
    arXiv:2107.03374, equation 1. The plug-in 1 - (1 - c/n)^k is biased low. With 2 right of 4, two drawn miss both
    in 1 of 6 pairs:

    >>> round(pass_at_k(n=4, right=2, k=2), 4)
    0.8333
    >>> pass_at_k(n=4, right=2, k=1)
    0.5
    """
    if not 0 <= right <= n or not 1 <= k <= n:
        raise ValueError(f"needs 0 <= right <= n and 1 <= k <= n, got n={n}, right={right}, k={k}")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean over problems: sample standard deviation / sqrt(problems); nan for fewer
    than two.

    The values are per-problem means, so samples of one problem do not pass for independent problems. Source: Miller
    2024, "Adding error bars to evals", arXiv:2411.00640, section 2.1 (central limit theorem over questions).

    >>> round(standard_error([1.0, 0.5, 0.0, 0.5]), 4)
    0.2041
    """
    if len(values) < 2:
        return math.nan
    mean = fmean(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return math.sqrt(variance / len(values))


def is_error_known(values: Sequence[float]) -> bool:
    """Return whether scores of 0 to 1 of so many problems tell how far their mean may be off.

    They do not where all but a few problems score the same: two problems that are both solved, or twelve that are all
    right in 5 of 8 samples, have a standard error of 0, and know nothing.

    >>> is_error_known([1.0, 1.0]), is_error_known([1.0] * 95 + [0.5] * 5), is_error_known([1.0, 0.0] * 10)
    (False, False, True)
    >>> is_error_known([0.625] * 12)
    False
    """
    return len(values) - max(Counter(values).values(), default=0) >= INFORMATIVE


def wilson(*, right: int, n: int) -> Interval:
    """Return the interval of a share of yes-or-no outcomes, which also holds at 0, at n and for few problems.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22; formula as
    in Brown, Cai, DasGupta 2001, "Interval estimation for a binomial proportion", equation 4.

    >>> share = wilson(right=8, n=10)
    >>> round(share.lo, 4), share.value, round(share.hi, 4)
    (0.4902, 0.8, 0.9433)
    """
    if not 0 <= right <= n or n < 1:
        raise ValueError(f"needs 0 <= right <= n and n >= 1, got right={right}, n={n}")
    share, square = right / n, _Z95**2
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z95 / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Interval(value=share, lo=min(share, max(0.0, centre - half)), hi=max(share, min(1.0, centre + half)))


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Return the interval of the mean of per-problem values: percentiles of the means of 10,000 resamples of the
    problems.

    Source: Efron, Tibshirani 1993, "An introduction to the bootstrap", section 13.3. The interval says what to expect
    on other problems of the same kind, not on these very problems with other samples. For a paired comparison give
    the per-problem differences (`paired_difference`).

    >>> mean = bootstrap([1.0, 0.0, 1.0, 0.5] * 25)
    >>> mean.value, round(mean.lo, 2), round(mean.hi, 2)
    (0.625, 0.55, 0.7)
    """
    import numpy as np

    if not values:
        raise ValueError("an interval needs at least one value")
    data = np.asarray(values, dtype=float)
    random = np.random.default_rng(seed)
    # Of thousands of problems fewer resamples do: the interval is narrow then, and its ends are some per cent of its
    # width off. In parts: all resamples of many problems at once would fill the memory.
    resamples = max(_FEWEST_RESAMPLES, min(_RESAMPLES, _RESAMPLED // len(data)))
    parts = [data[random.integers(0, len(data), (500, len(data)))].mean(axis=1) for _ in range(resamples // 500)]
    lo, hi = np.percentile(np.concatenate(parts), [2.5, 97.5])
    return Interval(value=float(data.mean()), lo=float(lo), hi=float(hi))


def paired_difference(base: Sequence[float], tuned: Sequence[float], *, seed: int = 0) -> Interval:
    """Return tuned - base on the same problems in the same order, with the paired bootstrap's interval.

    Pairing takes the problems' own difficulty out of the comparison (Miller 2024, arXiv:2411.00640, section 4.2).

    >>> difference = paired_difference([0.0, 0.5, 1.0] * 30, [0.25, 0.75, 1.0] * 30)
    >>> round(difference.value, 4), difference.lo > 0
    (0.1667, True)
    """
    if len(base) != len(tuned):
        raise ValueError(f"a paired comparison needs the same problems, got {len(base)} and {len(tuned)}")
    return bootstrap([after - before for before, after in zip(base, tuned, strict=True)], seed=seed)


def paired_change(before: Sequence[float], after: Sequence[float]) -> PairedChange:
    """Return after - before on the same problems in the same order, by interval and by exact test.

    >>> paired_change([1.0, 1.0, 1.0], [0.0, 0.0, 0.0])
    PairedChange(value=-1.0, lo=-1.0, hi=-1.0, p=0.25)
    """
    differences = [new - old for old, new in zip(before, after, strict=True)]
    p = paired_p(differences) if all(map(math.isfinite, differences)) else None
    return PairedChange(**asdict(paired_difference(before, after)), p=p)


def paired_p(differences: Sequence[float], *, seed: int = 0) -> float:
    """Return the two-sided p of paired differences: the share of random sign flips with a mean at least as far from 0.

    The sign-flip permutation test (Fisher 1935, "The design of experiments", section 21). With differences of -1, 0
    and 1 it is the exact McNemar test. Up to 14 problems that differ, all signs are tried; beyond, 20,000 random ones.

    >>> paired_p([1.0, 1.0, 1.0, 0.0])
    0.25
    """
    import numpy as np

    # A difference of 0 keeps its value under either sign, so it changes no sum and only doubles the count.
    data = np.array([value for value in differences if value != 0])
    if not len(data):
        return 1.0
    if len(data) <= _EXACT_SIGNS:
        # All 2^n sign vectors, as the bits of 0 to 2^n - 1. The tolerance keeps a sum that equals the observed one but
        # for rounding on the counted side.
        signs = (np.arange(2 ** len(data))[:, None] >> np.arange(len(data)) & 1) * 2 - 1
        return float((abs(signs @ data) >= abs(data.sum()) - 1e-9).mean())
    random = np.random.default_rng(seed)
    parts = [(random.integers(0, 2, (2000, len(data))) * 2 - 1) @ data for _ in range(10)]
    as_far = int((abs(np.concatenate(parts)) >= abs(data.sum()) - 1e-9).sum())
    # The observed signs count as one of the draws: a permutation p-value is never 0 (Phipson, Smyth 2010,
    # "Permutation p-values should never be zero").
    return (as_far + 1) / (10 * 2000 + 1)


def binomial_p(k: int, *, n: int, share: float) -> float:
    """Return the one-sided p of k or more of n yes-or-no outcomes, each a yes with a chance of at most `share`.

    The exact binomial test: it is below 0.025 where the interval of Clopper, Pearson 1934, "The use of confidence or
    fiducial limits illustrated in the case of the binomial", Biometrika 26, lies above `share`.

    >>> round(binomial_p(2, n=3, share=0.5), 4), binomial_p(0, n=3, share=0.0), binomial_p(1, n=3, share=0.0)
    (0.5, 1.0, 0.0)
    """
    if k <= 0 or share >= 1:
        return 1.0
    if share <= 0:
        return 0.0
    # By logarithms: the coefficients of thousands of outcomes are no floats.
    yes, no, all_ways = math.log(share), math.log1p(-share), math.lgamma(n + 1)
    ways = ((at, all_ways - math.lgamma(at + 1) - math.lgamma(n - at + 1)) for at in range(k, n + 1))
    return min(1.0, math.fsum(math.exp(way + at * yes + (n - at) * no) for at, way in ways))


def problems_needed(differences: Sequence[float]) -> int | None:
    """Return how many problems show a true difference of this size in 8 of 10 comparisons; None where it is 0.

    ((1.96 + 0.84) sd / mean)^2 is the usual sample size for a two-sided 5% test with 80% power (Miller 2024,
    arXiv:2411.00640, section 5).

    >>> problems_needed([0.5, -0.25, 0.25, 0.0])
    53
    """
    mean = fmean(differences)
    if len(differences) < 2 or abs(mean) < 1e-12:
        return None
    sd = standard_error(differences) * math.sqrt(len(differences))
    return max(2, math.ceil(((_Z95 + _Z80) * sd / mean) ** 2))


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Problems whose vote won with about the same share of the samples."""

    lo: float
    hi: float
    problems: int
    share: float
    """Mean vote share."""
    right: float
    """Share of the problems whose vote is right."""


def calibration(votes: Sequence[tuple[float, bool]], *, bins: int = 5) -> list[Bin]:
    """Return how often votes are right by their share of the samples, in bins of equal width without the empty ones.

    Give (share, right) of each problem; the share of a problem without an answer is 0. A well-calibrated vote is
    right as often as its share says. Source: Guo et al. 2017, "On calibration of modern neural networks",
    arXiv:1706.04599, section 2.

    >>> [(item.lo, item.problems, item.right) for item in calibration([(1.0, True), (0.9, False), (0.3, False)])]
    [(0.2, 1, 0.0), (0.8, 2, 0.5)]
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for share, right in votes:
        members.setdefault(min(int(share * bins), bins - 1), []).append((share, right))
    return [
        Bin(
            lo=number / bins,
            hi=(number + 1) / bins,
            problems=len(votes_of_bin),
            share=fmean(share for share, _ in votes_of_bin),
            right=fmean(right for _, right in votes_of_bin),
        )
        for number, votes_of_bin in sorted(members.items())
    ]


def calibration_error(votes: Sequence[tuple[float, bool]], *, bins: int = 5) -> float:
    """Return the expected calibration error: mean over problems of |share - right| of their bin (Guo et al. 2017,
    equation 3).

    >>> round(calibration_error([(1.0, True), (0.9, False), (0.3, False)]), 3)
    0.4
    """
    return sum(item.problems * abs(item.share - item.right) for item in calibration(votes, bins=bins)) / len(votes)


def curve_points(n: int) -> list[int]:
    """Return the k at which curves are given: powers of two below n, and n.

    >>> curve_points(12)
    [1, 2, 4, 8, 12]
    """
    return [2**power for power in range((n - 1).bit_length())] + [n] if n > 1 else [1]


def format_percent(value: float | None) -> str:
    """Return a fraction as percent with one decimal.

    >>> format_percent(0.4567), format_percent(None)
    ('45.7', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}"


def format_with_error(value: float, error: float | None) -> str:
    """Return a fraction with its standard error, in percent.

    >>> format_with_error(0.5, 0.021), format_with_error(1.0, None)
    ('50.0 ± 2.1', '100.0')
    """
    return format_percent(value) if error is None else f"{format_percent(value)} ± {format_percent(error)}"


def format_ends(change: Interval, *, problems: int | None = None, digits: int = 1) -> str:
    """Return the interval of a difference; one of no width over fewer than `INFORMATIVE` problems is not told.

    It knows nothing there. Over many problems it says that all did the same, as where an export changes no answer.

    >>> same = Interval(value=0.0, lo=0.0, hi=0.0)
    >>> [format_ends(same, problems=number) for number in (9, 10, None)]
    ['too few to tell', '[+0.0, +0.0]', '[+0.0, +0.0]']
    """
    if change.lo == change.hi and problems is not None and problems < INFORMATIVE:
        return "too few to tell"
    return f"[{change.lo:+.{digits}f}, {change.hi:+.{digits}f}]"


def format_change(change: Interval, *, problems: int | None = None, digits: int = 1, unit: str = "") -> str:
    """Return a difference with its interval, as `format_ends` has it.

    >>> format_change(Interval(value=4.0, lo=-1.0, hi=9.04))
    '+4.0 [-1.0, +9.0]'
    >>> format_change(Interval(value=0.0, lo=0.0, hi=0.0), problems=1)
    '+0.0, too few to tell'
    >>> format_change(Interval(value=-0.25, lo=-0.5, hi=0.0), digits=3, unit=" nats")
    '-0.250 nats [-0.500, +0.000]'
    """
    ends = format_ends(change, problems=problems, digits=digits)
    return f"{change.value:+.{digits}f}{unit}{' ' if ends[0] == '[' else ', '}{ends}"


def to_points(change: Interval) -> Interval:
    """Return a difference of shares in points, hundredths."""
    return Interval(value=100 * change.value, lo=100 * change.lo, hi=100 * change.hi)


def format_interval(interval: Interval) -> str:
    """Return a fraction with its interval, in percent.

    >>> format_interval(Interval(value=0.5, lo=0.4, hi=0.6))
    '50.0 [40.0, 60.0]'
    """
    return f"{format_percent(interval.value)} [{format_percent(interval.lo)}, {format_percent(interval.hi)}]"
