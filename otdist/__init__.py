"""The 2-Wasserstein distance as a building block."""

__version__ = "0.1.0"
