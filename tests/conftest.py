"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# Deterministic, so that a failure is the change's; no deadline, because the first call of a kernel compiles it.
settings.register_profile(
    "otdist", deadline=None, derandomize=True, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("otdist")
