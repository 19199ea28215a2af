"""Configs are values: frozen dataclasses with a canonical JSON form, a content hash, overrides and a diff.

    @config
    class Attention(Mixer):
        heads: int
        kv_heads: int = 1

A config is checked when it is made (`Attention(heads="8")` is an error that names the field), two equal
configs have one hash, and any part of a tree of configs is reached by a dotted path: `model.block.mixer.heads`.

Numbers that a compiled program may take as inputs are declared as such by their type, `Scalar` or `Count`.
`lift` takes them out of a config, leaving a shape that is the same for all runs which can share one
executable; `lower` puts them, or the tracers standing for them, back.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from lm.errors import UserError, unknown

T = TypeVar("T")

TRACED = "traced"
Scalar = Annotated[float, TRACED]  # a number that the compiled program takes as an input
Count = Annotated[int, TRACED]

_classes: dict[str, type] = {}


class ConfigError(UserError, ValueError):
    """A config, a path or an override that doesn't fit, with what to do instead."""


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
def config(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen keyword-only dataclass that is type-checked, registered by name and serialisable.

    A `__post_init__` may add checks of its own; it runs after every field is known to have its type. As with any
    method, a subclass inherits it, and one that has its own calls super() for the base's.
    """
    validate = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        for name, kind in hints(type(self)).items():
            object.__setattr__(self, name, fit(getattr(self, name), kind, f"{type(self).__name__}.{name}"))
        if validate is not None:
            validate(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    init = made.__init__

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        for key in kwargs:
            if key not in hints(type(self)):
                raise ConfigError(unknown(key, hints(type(self)), f"{type(self).__name__} has no field"))
        try:
            init(self, *args, **kwargs)
        except TypeError as error:
            if "missing" not in str(error) and "positional" not in str(error):
                raise
            said = str(error).removeprefix(f"{made.__qualname__}.__init__() ")
            raise ConfigError(f"{type(self).__name__}: {said}") from None

    made.__init__ = __init__  # type: ignore[method-assign]
    tag = type_tag(made)
    other = _classes.get(tag)
    if other is not None and (other.__module__, other.__qualname__) != (made.__module__, made.__qualname__):
        raise ConfigError(f"two configs are called {tag}: in {other.__module__} and {made.__module__}; rename one")
    _classes[tag] = made
    return made


def type_tag(cls: type) -> str:
    """The name a config's JSON carries: short for our own classes, `module:Class` for those of others."""
    return cls.__name__ if cls.__module__.split(".")[0] == "lm" else f"{cls.__module__}:{cls.__qualname__}"


def is_config(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and type_tag(type(value)) in _classes


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field names and types of a config class, in order."""
    found = typing.get_type_hints(cls, include_extras=True)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def component(tag: Any) -> type:
    """The config class a tag names; its module is imported: that in its tag, or of `lm` the one that defines it."""
    if not isinstance(tag, str):
        raise ConfigError(f"the type of a config must be a name, got {tag!r}")
    if tag not in _classes and (module := tag.split(":")[0] if ":" in tag else _module_of(tag)):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ConfigError(f"config type '{tag}' can't be imported: {error}") from None
    if tag not in _classes:
        raise ConfigError(unknown(tag, _classes, "there is no config type"))
    return _classes[tag]


def _module_of(name: str) -> str | None:
    """The module of `lm` that defines a config class: a process that reads a config needn't have used all its parts."""
    if not name.isidentifier():
        return None
    root = Path(__file__).parent
    statement = re.compile(rf"^@config\nclass {name}\b", re.MULTILINE)
    for path in sorted(root.rglob("*.py")):
        if statement.search(path.read_text(encoding="utf-8")):
            return ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
    return None


# ---- types -------------------------------------------------------------------------------------------------


def strip(kind: Any) -> Any:
    """The type without its `Annotated` marks."""
    return strip(typing.get_args(kind)[0]) if typing.get_origin(kind) is Annotated else kind


def options(kind: Any) -> tuple[Any, ...]:
    """The types that a type allows, each without marks."""
    kind = strip(kind)
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return tuple(strip(option) for option in typing.get_args(kind)) if union else (kind,)


def components(kind: Any) -> list[str]:
    """The tags of the config classes that a type allows."""
    wanted = tuple(
        o for o in options(kind) if isinstance(o, type) and o not in (int, float, bool, str, Any, type(None))
    )
    return [tag for tag, cls in _classes.items() if issubclass(cls, wanted)]


def is_traced(kind: Any) -> bool:
    """True for `Scalar` and `Count`, and for their optional forms."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(map(is_traced, typing.get_args(kind)))
    return typing.get_origin(kind) is Annotated and TRACED in typing.get_args(kind)[1:]


def describe(kind: Any) -> str:
    """A type as an error message shows it."""
    kind = strip(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(describe(k) for k in typing.get_args(kind))
    if kind is type(None):
        return "None"
    if typing.get_origin(kind) is not None:
        return str(kind).replace("typing.", "")
    return getattr(kind, "__name__", str(kind))


def fit(value: Any, kind: Any, where: str) -> Any:
    """`value` as `kind`, with the harmless conversions (int to float, list to tuple) done. Raises ConfigError."""
    kind = strip(kind)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    wrong = ConfigError(f"{where} must be {describe(kind)}, got {value!r} ({type(value).__name__})")
    if kind is Any:
        return tuple(fit(v, Any, where) for v in value) if isinstance(value, list) else value
    if origin in (typing.Union, types.UnionType):
        if type(value) in options(kind):
            return value
        for option in args:
            try:
                return fit(value, option, where)
            except ConfigError:
                continue
        raise wrong
    if origin is Literal:
        if value not in args or isinstance(value, bool) != any(isinstance(a, bool) and a == value for a in args):
            raise ConfigError(f"{where} must be one of {', '.join(map(repr, args))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise wrong
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(fit(v, args[0], f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(args):
            raise ConfigError(f"{where} must have {len(args)} items, got {len(value)}: {value!r}")
        return tuple(fit(v, k, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, args, strict=True)))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise wrong
        return {fit(k, args[0], f"a key of {where}"): fit(v, args[1], f"{where}.{k}") for k, v in value.items()}
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong
        if math.isnan(value):
            raise ConfigError(f"{where} is NaN")
        return float(value) + 0.0  # -0.0 equals 0.0, so it must be written alike
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong
    return value


# ---- JSON --------------------------------------------------------------------------------------------------


def to_dict(value: Any) -> Any:
    """JSON-ready form of a config: every field, defaults too, and the type's tag under `type`."""
    if is_config(value):
        return {"type": type_tag(type(value)), **{k: to_dict(getattr(value, k)) for k in hints(type(value))}}
    if isinstance(value, Mapping):
        if "type" in value or not all(isinstance(k, str) for k in value):
            raise ConfigError(f"keys of a table in a config are strings other than 'type', got {list(value)}")
        return {k: to_dict(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [to_dict(v) for v in value]
    if isinstance(value, float) and math.isinf(value):
        return {"type": "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigError(f"a config can't hold {value!r} ({type(value).__name__})")


def from_dict(data: Any, where: str = "config") -> Any:
    """The config that `to_dict` wrote. Unknown types and keys are errors that name the nearest valid one."""
    if isinstance(data, Mapping) and "type" in data:
        if data["type"] == "float":
            return float(data.get("value", "nan"))
        cls = component(data["type"])
        fields = {k: v for k, v in data.items() if k != "type"}
        for key in fields:
            if key not in hints(cls):
                raise ConfigError(unknown(key, hints(cls), f"{where}: {cls.__name__} has no field"))
        return cls(**{k: from_dict(v, f"{where}.{k}") for k, v in fields.items()})
    if isinstance(data, Mapping):
        return {k: from_dict(v, f"{where}.{k}") for k, v in data.items()}
    if isinstance(data, list):
        return tuple(from_dict(v, f"{where}[{i}]") for i, v in enumerate(data))
    return data


def dumps(value: Any, indent: int | None = None) -> str:
    """Canonical JSON: equal configs give equal text."""
    separators = (",", ":") if indent is None else None
    return json.dumps(to_dict(value), sort_keys=indent is None, separators=separators, indent=indent, allow_nan=False)


def loads(text: str) -> Any:
    """The config that `dumps` wrote. Raises ConfigError for what is no JSON or no config of this version."""
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"not a config: the text is no JSON ({error})") from None


def content_hash(value: Any, *salt: str) -> str:
    """16 hexadecimal digits that depend on every field of `value` and on `salt`, and on nothing else."""
    digest = hashlib.blake2b(dumps(value).encode(), digest_size=8)
    for part in salt:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


# ---- paths -------------------------------------------------------------------------------------------------


def _kind(owner: Any, key: str) -> Any:
    """The declared type of `owner.key`, where `owner` is a config, a tuple or a mapping of a config."""
    return hints(type(owner))[key] if is_config(owner) else Any


def _child(owner: Any, key: str, where: str) -> Any:
    if is_config(owner):
        if key not in hints(type(owner)):
            what = f"{where or 'the config'} ({type(owner).__name__}) has no field"
            raise ConfigError(unknown(key, hints(type(owner)), what))
        return getattr(owner, key)
    if isinstance(owner, tuple):
        if not key.isdigit() or int(key) >= len(owner):
            raise ConfigError(f"{where} has items 0 to {len(owner) - 1}, not '{key}'")
        return owner[int(key)]
    if isinstance(owner, Mapping):
        if key not in owner:
            raise ConfigError(unknown(key, owner, f"{where} has no entry"))
        return owner[key]
    raise ConfigError(f"{where} is {owner!r}, which has no field '{key}'")


def _first(owner: Any, path: str) -> tuple[str, str | None]:
    """The first key of a path, and what is left. The keys of a table may have dots in them: the longest one holds."""
    keys = [k for k in owner if f"{path}.".startswith(f"{k}.")] if isinstance(owner, Mapping) else []
    key = max(keys, key=len) if keys else path.split(".", 1)[0]
    return key, path[len(key) + 1 :] if path != key else None


def get(value: Any, path: str) -> Any:
    """The part of a config at a dotted path (items of tuples by number)."""
    where, rest = "", path
    while rest is not None:
        key, rest = _first(value, rest)
        value = _child(value, key, where)
        where = f"{where}.{key}" if where else key
    return value


def _put(owner: Any, path: str, make: Callable[[Any], Any], where: str = "") -> Any:
    """`owner` with `make(declared type)` at the path; what is on the way isn't checked again."""
    key, rest = _first(owner, path)
    old, here = _child(owner, key, where), f"{where}.{key}" if where else key
    new = make(_kind(owner, key)) if rest is None else _put(old, rest, make, here)
    if isinstance(owner, tuple):
        return tuple(new if i == int(key) else v for i, v in enumerate(owner))
    if isinstance(owner, Mapping):
        return {**owner, key: new}
    changed = object.__new__(type(owner))
    for name in hints(type(owner)):
        object.__setattr__(changed, name, new if name == key else getattr(owner, name))
    return changed


def _checked(value: Any) -> Any:
    """The same config made anew from the inside out, so that every check runs."""
    if is_config(value):
        return type(value)(**{name: _checked(getattr(value, name)) for name in hints(type(value))})
    if isinstance(value, tuple):
        return tuple(map(_checked, value))
    return {k: _checked(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def replace(value: T, changes: Mapping[str, Any]) -> T:
    """`value` with the parts at the given paths replaced. Checked as a whole, since changes may need each other."""
    for path, new in changes.items():
        value = _put(value, path, lambda kind, n=new, p=path: fit(n, kind, p))
    return _checked(value)


def override(value: T, assignments: Sequence[str]) -> T:
    """Applies `path=text` overrides, as the command line gives them; the result is checked as a whole.

    The text is a literal (`2`, `1e-3`, `none`, `(1, 2)`), a word where the field takes one, or a component
    (`ALiBi`, `RoPE(base=500000)`).
    """
    from lm.literals import read

    for assignment in assignments:
        path, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise ConfigError(f"override '{assignment}' is not of the form path=value")
        value = _put(value, path, lambda kind, t=text, p=path: read(t, kind, p))
    return _checked(value)


def walk(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf of a config as (path, value, declared type). A leaf is what has no config inside."""
    dot = f"{path}." if path else ""
    if is_config(value):
        for key, kind in hints(type(value)).items():
            child = getattr(value, key)
            if is_config(child) or isinstance(child, tuple | Mapping):
                yield from walk(child, dot + key)
            else:
                yield dot + key, child, kind
    elif isinstance(value, tuple):
        for i, child in enumerate(value):
            yield from walk(child, f"{dot}{i}")
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from walk(child, f"{dot}{key}")
    else:
        yield path, value, Any


def diff(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """What differs between two configs: path -> (old, new). Components of different types are one entry."""
    dot = f"{path}." if path else ""
    if is_config(old) and type(old) is type(new):
        parts = {k: (getattr(old, k), getattr(new, k)) for k in hints(type(old))}
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        parts = {str(i): pair for i, pair in enumerate(zip(old, new, strict=True))}
    elif isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        parts = {k: (old[k], new[k]) for k in old}
    else:
        return {} if old == new else {path: (old, new)}
    return {p: v for k, (a, b) in parts.items() for p, v in diff(a, b, dot + k).items()}


# ---- numbers that cross into a compiled program -------------------------------------------------------------


def lift(value: T) -> tuple[T, dict[str, float | int]]:
    """Splits a config into its shape and the numbers a compiled program takes as inputs.

    Runs with equal shapes share an executable. In the shape each number is replaced by the mark `TRACED`.
    """
    values = {path: leaf for path, leaf, kind in walk(value) if is_traced(kind) and leaf is not None}
    return lower(value, dict.fromkeys(values, TRACED)), values


def lower(shape: T, values: Mapping[str, Any]) -> T:
    """The config with `values` (numbers, arrays or tracers) at their paths. Not checked: tracers have no value."""
    for path, new in values.items():
        shape = _put(shape, path, lambda kind, new=new: new)
    return shape
