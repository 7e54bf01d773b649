"""Importing a third party's module without what it does to the caller's process."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import numpy as np


def imported(name: str) -> Any:
    """The module ``name``; a first import leaves warning filters, environment and NumPy's generator as they were."""
    if name in sys.modules:
        return sys.modules[name]
    environment, state = dict(os.environ), np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            return importlib.import_module(name)
    finally:
        np.random.set_state(state)  # noqa: NPY002
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)
