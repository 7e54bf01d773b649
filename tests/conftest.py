"""Settings shared by all tests."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Deterministic, so that a failure is the change's; no deadline, because the first call of a kernel compiles it.
settings.register_profile(
    "otdist", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
# `make fuzz`: other examples in each run, FUZZ_EXAMPLES of them a function; those that failed are kept and tried first.
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("otdist")


@pytest.fixture(autouse=True, scope="module")
def _one_thread_for_networks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests run side by side, and networks as small as theirs wait for a second thread longer than it helps."""
    if not request.path.name.startswith("test_vae"):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def quick_classifiers() -> Iterator[None]:
    """Classifiers that learn little, for tests of what is done with their scores: they take most of the time."""
    import vae_quick

    with pytest.MonkeyPatch.context() as patch:
        vae_quick.quicken(patch.setattr)
        yield
