"""Components described by plain values: what makes a saved model readable without running code."""

from __future__ import annotations

import inspect
from typing import Any

from .typed import argument_annotations, shown, typed


def parameters(cls: type) -> list[str]:
    """The names of the constructor's arguments."""
    found = inspect.signature(cls).parameters.values()
    return [p.name for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def describe(component: Any) -> dict[str, Any]:
    """``{"name": ..., argument: value, ...}``: the component as JSON and YAML can hold it.

    A component keeps each constructor argument in an attribute of the same name.
    """
    cls = type(component)
    return {"name": cls.__name__.lower(), **{k: getattr(component, k) for k in parameters(cls)}}


def catalogue(base: type, namespace: dict[str, Any]) -> dict[str, type]:
    """The public classes below `base` in a module, by their names in lower case."""
    return {
        value.__name__.lower(): value
        for key, value in namespace.items()
        if isinstance(value, type)
        and issubclass(value, base)
        and value is not base
        and not _is_abstract(value)
        and not key.startswith("_")
    }


def _is_abstract(cls: type) -> bool:
    """Whether a method is still to be written; `inspect.isabstract` sees that only under an ABC metaclass."""
    return any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))


def make(argument: str, spec: Any, base: type, choices: dict[str, type]) -> Any:
    """A component from an instance, a name, or a description made by :func:`describe`.

    Raises ValueError or TypeError naming `argument`, the choices, and what arrived.
    """
    if isinstance(spec, base):
        return spec
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, dict) or "name" not in spec:
        raise TypeError(
            f"{argument} must be a {base.__name__}, a name or a dict with a name; got {type(spec).__name__}"
        )
    options = dict(spec)
    name = str(options.pop("name")).lower()
    if name not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(sorted(choices))}; got {shown(name)}")
    known = argument_annotations(choices[name])
    for key, value in options.items():
        if key not in known:
            takes = ", ".join(known) or "no options"
            raise ValueError(f"{argument} {name!r} takes {takes}; got {shown(key)}")
        options[key] = typed(f"{argument}.{key}", value, known[key], from_text=True)
    return choices[name](**options)
