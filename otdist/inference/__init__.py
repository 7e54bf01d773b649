"""What a distance between samples says about where they came from: tests, intervals, and corrections of bias.

The distance of two samples is above the distance of their distributions, by about 1/n for smooth distances such as the
Fréchet distance and the sliced one, and by more, about n^(-2/d), for exact transport. The jackknife removes a bias of
1/n.
"""

from .frechet import frechet_distance
from .intervals import Interval, confidence_interval
from .permutation import TestResult, two_sample_test

__all__ = ["Interval", "TestResult", "confidence_interval", "frechet_distance", "two_sample_test"]


def __dir__() -> list[str]:
    return __all__
