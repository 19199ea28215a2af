"""What the text of an override stands for: a literal, a word, or a component."""

from __future__ import annotations

import ast
from typing import Any, Literal, get_origin

from lm.config import ConfigError, component, components, describe, fit, hints, options, unknown

CONSTANTS = {"none": None, "true": True, "false": False}


def read(text: str, kind: Any, where: str) -> Any:
    """The value that `text` stands for in a field of type `kind`. Raises ConfigError, naming `where`, if none."""
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        node = None
    return _read(text, node, kind, where)


def _read(text: str, node: ast.expr | None, kind: Any, where: str) -> Any:
    takes_words = any(option is str or get_origin(option) is Literal for option in options(kind))
    if node is None or (isinstance(node, ast.Name) and not _known(node.id)):
        fitting = components(kind)
        if fitting and not takes_words:
            raise ConfigError(unknown(text, fitting, f"{where}: there is no {describe(kind)}"))
        return fit(text, kind, where)
    try:
        return fit(_value(node), kind, where)
    except ConfigError:
        if not takes_words:
            raise
        return fit(text, kind, where)  # a string needs no quotes, whatever it looks like


def _known(name: str) -> bool:
    return name.lower() in CONSTANTS or _tag(name) in components(object)


def _tag(name: str) -> str:
    """The tag of a component: its name, or for a class outside `lm` the tag that ends in it."""
    tags = components(object)
    found = [name] if name in tags else [tag for tag in tags if tag.endswith(f":{name}")]
    if len(found) > 1:
        raise ConfigError(f"'{name}' may be any of {', '.join(found)}; rename all but one")
    return found[0] if found else name


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name):
        return CONSTANTS[node.id.lower()] if node.id.lower() in CONSTANTS else component(_tag(node.id))()
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        cls = component(_tag(node.func.id))
        if node.args or any(k.arg is None for k in node.keywords):
            raise ConfigError(f"{cls.__name__}(...) takes its fields by name")
        kinds, given = hints(cls), {str(k.arg): k.value for k in node.keywords}
        return cls(**{k: _part(v, kinds.get(k, Any), f"{cls.__name__}.{k}") for k, v in given.items()})
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_part(n, Any, "item") for n in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(k): _part(v, Any, "item") for k, v in zip(node.keys, node.values, strict=True) if k}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        raise ConfigError(f"'{ast.unparse(node)}' is neither a literal nor a component") from None


def _part(node: ast.expr, kind: Any, where: str) -> Any:
    return _read(ast.unparse(node), node, kind, where)
