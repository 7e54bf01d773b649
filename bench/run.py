"""Running a workload: the values must agree before anything is timed; then everybody takes turns.

A ratio is the median over rounds of (rival's time / our time) within one round, so a machine that slows down or
speeds up in between changes both alike.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench import device
from bench.problems import Arrays, Problem
from bench.rivals import Call, Contender
from bench.workload import Tolerance, Workload

Clock = Callable[[int], float]

# A turn lasts at least this long: what the pause before it has slowed down (clock rate, caches, branch predictors)
# takes several short calls to recover, and users of short calls make many.
SHORTEST_TURN_S = 2e-2
# Up to here a call may still find its caches cold after somebody else's turn, so an untimed call goes first.
WARM_UP_BELOW_S = 0.1
# Idle threads of OpenBLAS and OpenMP spin before they sleep, on cores that the next one needs: for 10 ms, or for 100.
# The next turn waits until the process has used no time for so long (several ticks of the kernel's clock), at most a
# second.
SETTLE_S = 0.02
MOST_ROUNDS = 50
FEWEST_ROUNDS = 3
# Quartiles of the ratios further apart than this prove nothing: on an idle machine they are some 5% apart.
UNSTEADY = 1.5
# One workload shall not keep anybody waiting much longer than this, whatever the number of rounds.
MOST_SECONDS = 60.0


@dataclass
class Result:
    """What was found about one contender. The times are seconds a call, one for each round."""

    contender: str
    version: str | None = None
    status: str = "ok"  # or: not installed, disagrees, failed
    detail: str = ""
    times: list[float] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    at_least: float | None = None
    ratios: list[float] = field(default_factory=list)
    peak_bytes: float | None = None

    @property
    def median(self) -> float | None:
        return float(np.median(self.times)) if self.times else None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is: None where a comparison would be meaningless."""
        return float(np.median(self.ratios)) if self.ratios and self.status == "ok" else None

    @property
    def ratio_quartiles(self) -> tuple[float, float] | None:
        if self.ratio is None:
            return None
        low, high = np.quantile(self.ratios, [0.25, 0.75])
        return float(low), float(high)

    @property
    def steady(self) -> bool:
        """Whether the rounds tell one story. On a machine that does other things too they do not."""
        quartiles = self.ratio_quartiles
        return quartiles is not None and quartiles[1] <= UNSTEADY * quartiles[0]

    @property
    def meets_target(self) -> bool | None:
        if self.at_least is None or self.ratio is None or not self.steady:
            return None
        return self.ratio >= self.at_least


@dataclass
class Report:
    """One workload: our result first, then every rival's."""

    workload: str
    group: str
    title: str
    tolerance: str
    results: list[Result]
    at_most_s: float | None = None
    at_most_bytes: float | None = None

    @property
    def ours(self) -> Result:
        return self.results[0]

    @property
    def right(self) -> bool:
        """Our answers were the true ones, and no rival contradicts them."""
        return all(result.status in ("ok", "not installed") for result in self.results)


def errors(answers: Arrays, truth: Arrays) -> dict[str, float]:
    """Relative errors: of values the largest, of a gradient its norm's. NaN counts as infinitely wrong."""
    found = {}
    for name in truth.keys() & answers.keys():
        difference = np.abs(np.asarray(answers[name], dtype=float) - truth[name])
        if name == "value":
            error = np.max(difference / np.abs(truth[name]), initial=0.0)
        else:
            error = np.linalg.norm(difference) / np.linalg.norm(truth[name])
        found[name] = float(error) if np.isfinite(error) else float("inf")
    return dict(sorted(found.items()))


def run(workload: Workload, *, budget_s: float = 30.0) -> Report:
    """Check, then time, one workload within about `budget_s` seconds of timing."""
    problem = workload.data()
    contenders = [workload.ours, *(rival.contender for rival in workload.rivals)]
    limits = [None, *(rival.at_least for rival in workload.rivals)]
    tolerances = [workload.tolerance, *(rival.tolerance or workload.tolerance for rival in workload.rivals)]
    results, calls, answers = [], [], []
    for contender, at_least in zip(contenders, limits, strict=True):
        result, call, answer = first_call(contender, problem)
        result.at_least = at_least
        results.append(result)
        calls.append(call)
        answers.append(answer)
    _judge(results, answers, tolerances, problem.answers)
    if results[0].status == "ok":
        entrants = [
            (result, _clock(contender, call))
            for result, contender, call in zip(results, contenders, calls, strict=True)
            if result.status == "ok" and call is not None
        ]
        _take_turns(entrants, budget_s)
    return Report(
        workload=workload.name,
        group=workload.group,
        title=workload.title,
        tolerance=str(workload.tolerance),
        results=results,
        at_most_s=workload.at_most_s,
        at_most_bytes=workload.at_most_bytes,
    )


def first_call(contender: Contender, problem: Problem) -> tuple[Result, Call | None, Arrays]:
    """The call, made once (compilers and caches get to work here), and what it answers."""
    result = Result(contender.name, contender.version)
    if not contender.installed:
        result.status = "not installed"
        return result, None, {}
    try:
        call = contender.prepare(problem)
        returned = call()
        answers = contender.answers(returned)
    except Exception as error:  # a rival that breaks must not end the run, and must not be dropped in silence
        result.status, result.detail = "failed", f"{type(error).__name__}: {error}"
        return result, None, {}
    if contender.peak_bytes is not None:
        result.peak_bytes = contender.peak_bytes(returned)
    if problem.entries is not None and "value" in answers:
        answers["value"] = answers["value"][problem.entries]
    result.errors = errors(answers, problem.answers)
    return result, call, answers


def _judge(
    results: Sequence[Result], answers: Sequence[Arrays], tolerances: Sequence[Tolerance], truth: Arrays
) -> None:
    """Mark who strays from the truth or, where none is known, from us. No ratio is printed for those."""
    standard = truth or answers[0]
    for result, answer, tolerance in zip(results, answers, tolerances, strict=True):
        if result.status != "ok" or not answer:
            continue
        for name, error in errors(answer, standard).items():
            if error > tolerance.rtol:
                result.status = "disagrees"
                result.detail = f"{name} is off by {error:.1e}, tolerated is {tolerance.rtol:.1e}"
    if results[0].status != "ok":
        for result in results[1:]:
            if result.status == "ok":
                result.status, result.detail = "not compared", "ours is not right"


def _take_turns(entrants: list[tuple[Result, Clock]], budget_s: float) -> None:
    """Time everybody once a round, in an order that rotates, until the budget is spent."""
    first = [clock(1) for _, clock in entrants]
    repeats = [max(1, round(SHORTEST_TURN_S / max(t, 1e-9))) for t in first]
    start = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(MOST_ROUNDS):
            allowed = budget_s if turn >= FEWEST_ROUNDS else max(budget_s, MOST_SECONDS)
            if turn and (time.perf_counter() - start) * (turn + 1) / turn > allowed:
                break
            for k in range(len(entrants)):
                k = (k + turn) % len(entrants)
                result, clock = entrants[k]
                _settle()
                if first[k] < WARM_UP_BELOW_S:
                    clock(1)
                result.times.append(clock(repeats[k]))
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    ours = entrants[0][0].times
    for result, _ in entrants[1:]:
        result.ratios = [theirs / mine for theirs, mine in zip(result.times, ours, strict=True)]


def _settle() -> None:
    """Wait until the threads that the last one left have gone to sleep."""
    for _ in range(round(1 / SETTLE_S)):
        used = time.process_time()
        time.sleep(SETTLE_S)
        if time.process_time() - used < SETTLE_S / 10:
            return


def _clock(contender: Contender, call: Call) -> Clock:
    """What tells the seconds that one of so many calls took: our watch, or the call's own where it has one."""
    if contender.seconds is not None:
        told = contender.seconds
        return lambda repeats: told(call())

    def clock(repeats: int) -> float:
        device.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        device.synchronize()
        return (time.perf_counter() - start) / repeats

    return clock
