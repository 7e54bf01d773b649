"""Formulas that users add: ``register_w2(P, Q)``, as ``torch.distributions.register_kl`` does for the KL divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .._core import checks

Formula = TypeVar("Formula", bound=Callable[[Any, Any], Any])
_FORMULAS: dict[tuple[type, type], Callable[[Any, Any], Any]] = {}


def register_w2(kind_p: type, kind_q: type) -> Callable[[Formula], Formula]:
    """Decorator that makes a function the squared 2-Wasserstein distance of two types of distribution.

    The function is called as ``function(p, q)`` with ``p`` of the first type and ``q`` of the second, subclasses
    included, and returns W2² in the broadcast batch shape. The distance is symmetric: it answers ``w2_squared(q, p)``
    too. Of several that fit, that of the nearest types is taken, and before anything built in.

    Parameters
    ----------
    kind_p, kind_q : type
        Classes of any library.

    Raises
    ------
    TypeError
        If either is not a class.

    Notes
    -----
    Type checkers know `otdist.w2_squared` for the distributions of PyTorch, and for what can be drawn from (``rvs``, as
    SciPy's); instances of other classes are to be passed as ``Any``.

    Examples
    --------
    >>> import otdist
    >>> class Point:
    ...     def __init__(self, at):
    ...         self.at = at
    >>> @otdist.register_w2(Point, Point)
    ... def between_points(p, q):
    ...     return (p.at - q.at) ** 2
    >>> otdist.w2_squared(Point(1.0), Point(4.0))
    9.0
    """
    for name, kind in (("kind_p", kind_p), ("kind_q", kind_q)):
        if not isinstance(kind, type):
            raise TypeError(f"{name} must be a class; got {kind!r}")

    def register(function: Formula) -> Formula:
        _FORMULAS[kind_p, kind_q] = function
        return function

    return register


def find(p: Any, q: Any) -> Callable[[Any, Any], Any] | None:
    """The formula for a pair, called as ``formula(p, q)``, or None."""
    if not _FORMULAS:
        return None
    fits = [(kinds, False) for kinds in _FORMULAS if isinstance(p, kinds[0]) and isinstance(q, kinds[1])]
    fits += [(kinds, True) for kinds in _FORMULAS if isinstance(p, kinds[1]) and isinstance(q, kinds[0])]
    if not fits:
        return None
    ranked = sorted(fits, key=lambda fit: _distances(fit, p, q))
    (kinds, swapped), best = ranked[0], _distances(ranked[0], p, q)
    for other in ranked[1:]:
        near = _distances(other, p, q)
        if other[0] != kinds and (near[0] < best[0]) != (near[1] < best[1]) and near != best:
            checks.warn(
                f"both {_names(kinds)} and {_names(other[0])} are registered with otdist.register_w2 and fit "
                f"{type(p).__name__} and {type(q).__name__}: taking the first; register the pair itself to choose",
                RuntimeWarning,
            )
            break
    function = _FORMULAS[kinds]
    return (lambda p, q: function(q, p)) if swapped else function


def empty() -> bool:
    """Whether nobody has registered anything."""
    return not _FORMULAS


def registered() -> str:
    """The registered pairs, for messages."""
    return ", ".join(_names(kinds) for kinds in _FORMULAS)


def _distances(fit: tuple[tuple[type, type], bool], p: Any, q: Any) -> tuple[int, int]:
    """How many steps up its ancestors each of the two has to go."""
    (first, second), swapped = fit
    if swapped:
        first, second = second, first
    return _steps(type(p), first), _steps(type(q), second)


def _steps(kind: type, ancestor: type) -> int:
    return kind.__mro__.index(ancestor) if ancestor in kind.__mro__ else len(kind.__mro__)


def _names(kinds: tuple[type, type]) -> str:
    return f"({kinds[0].__name__}, {kinds[1].__name__})"
