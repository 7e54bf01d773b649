"""Loops on plain arrays, compiled with numba: no checks, no allocation policy, no torch."""
