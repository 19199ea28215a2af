"""What a compiled program's text says: bytes that collectives move, by axis of the mesh, and the largest buffers.

A while loop's body counts as often as it runs, which XLA writes beside the loop, or which its condition compares with.
The TPU compiler takes a collective apart into a start, steps beside other work and an end, all on one channel, and
writes a reduce-scatter as a fusion of that name around an all-reduce.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(")
CALLED = re.compile(r"\b(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
TRIPS = re.compile(r'known_trip_count\\?":\s*\{\\?"n\\?":\\?"(\d+)')
NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}")
SHOWN = 12


def traffic(text: str, mesh: dict[str, int]) -> list[dict[str, Any]]:
    """Collectives by kind and axes of the mesh: how many run in a step, and bytes that one device sends for them.

    Bytes are those of a ring: a result of V bytes over n devices takes (n - 1) / n V to gather or scatter, and twice
    that to reduce to all (Thakur et al. 2005). A loop whose number of turns isn't known counts once.
    """
    totals: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    seen = set()
    for line, kind, shape, times, inside in _operations(text):
        base = kind.removesuffix("-start")
        if base not in KINDS or kind.endswith("-done"):
            continue
        channel = re.search(r"channel_id=(\d+)", line)
        if channel and "async_collective_fusion_config" in line:
            if channel.group(1) in seen:
                continue
            seen.add(channel.group(1))
        group = _group(line, base, math.prod(mesh.values()))
        if len(group) < 2:
            continue
        n, result = len(group), _result_bytes(shape, kind)
        if base == "all-reduce" and "all-reduce-scatter" in inside:
            base, sent = "reduce-scatter", (n - 1) / n * result
        elif base == "all-reduce":
            sent = 2 * (n - 1) / n * result
        elif base == "reduce-scatter":
            sent = (n - 1) * result
        elif base == "collective-permute":
            sent = result
        else:
            sent = (n - 1) / n * result
        entry = totals[base, _axes(group, mesh)]
        entry[0] += times
        entry[1] += times * sent
    return [
        {"kind": kind, "axes": axes, "count": count, "bytes": sent} for (kind, axes), (count, sent) in totals.items()
    ]


def large_buffers(text: str) -> list[dict[str, Any]]:
    """The largest results of operations outside of fusions, one entry for each shape and source."""
    found: dict[tuple[str, str], float] = {}
    for line, kind, shape, _, _ in _operations(text, fusions=False):
        if kind in ("tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "opt-barrier"):
            continue
        parts = [shape] if not shape.startswith("(") else []
        name = re.search(r'op_name="([^"]*)"', line)
        for part in parts:
            plain = re.sub(r"\{[^}]*\}", "", part)
            found[plain, "argument" if kind == "parameter" else (name.group(1) if name else kind)] = _bytes(part)
    top = sorted(found.items(), key=lambda item: -item[1])
    kept: dict[str, dict[str, Any]] = {}
    for (shape, source), size in top:
        if source != "argument":
            kept.setdefault(shape, {"shape": shape, "bytes": size, "source": source})
    return list(kept.values())[:SHOWN]


def _operations(text: str, fusions: bool = True) -> Iterator[tuple[str, str, str, float, str]]:
    """(line, operation, shape of its result, how often it runs in a call of the program, its computation) of each."""
    bodies: dict[str, list[str]] = {}  # until the next one begins: a closing brace may be one of a kernel's own text
    entry, current = "", None
    for line in text.splitlines():
        if match := COMPUTATION.match(line):
            current = match.group(2)
            bodies[current] = []
            entry = current if match.group(1) else entry
        elif current is not None:
            bodies[current].append(line)
    times = _times(bodies, entry, fusions)
    for name, lines in bodies.items():
        if times.get(name):
            for line in lines:
                if match := OPERATION.match(line):
                    yield line, match.group(3), match.group(2), times[name], name


def _times(bodies: dict[str, list[str]], entry: str, fusions: bool) -> dict[str, float]:
    """How often each computation runs."""
    calls: dict[str, list[tuple[str, float]]] = {}
    for name, lines in bodies.items():
        calls[name] = []
        for line in lines:
            match = OPERATION.match(line)
            if not match or (match.group(3) == "fusion" and not fusions):
                continue
            count = _turns(line, bodies) if match.group(3) == "while" else 1.0
            called = CALLED.findall(line)
            if branches := BRANCHES.search(line):
                called += [part.strip().lstrip("%") for part in branches.group(1).split(",")]
            calls[name] += [(other, count) for other in called]
    times: dict[str, float] = defaultdict(float)

    def visit(name: str, count: float) -> None:
        times[name] += count
        for other, each in calls.get(name, ()):
            visit(other, count * each)

    visit(entry, 1.0)
    return times


def _turns(line: str, bodies: dict[str, list[str]]) -> float:
    """How often a loop's body runs; 1 where that isn't known."""
    if trips := TRIPS.search(line):
        return float(trips.group(1))
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = bodies.get(condition.group(1), []) if condition else []
    limits = [m.group(1) for text in lines if (m := re.search(r"= s32\[\]\S* constant\((\d+)\)", text))]
    counts_up = any("compare(" in text and "direction=LT" in text for text in lines)
    return float(limits[0]) if counts_up and len(limits) == 1 else 1.0


def _bytes(shape: str) -> float:
    total = 0.0
    for kind, sides in SHAPE.findall(shape):
        size = SIZES.get(kind)
        if size is None:
            bits = re.search(r"\d+", kind)
            size = int(bits.group()) / 8 if bits else 0
        total += size * math.prod(int(side) for side in sides.split(",") if side)
    return total


def _result_bytes(shape: str, kind: str) -> float:
    """Of a collective. What starts one gives its operand too, before its result."""
    if not kind.endswith("-start") or not shape.startswith("("):
        return _bytes(shape)
    sizes = [_bytes(f"{k}[{s}]") for k, s in SHAPE.findall(shape)]
    return max(sizes) if kind.startswith("all-gather") else sum(sizes) / 2


def _group(line: str, kind: str, devices: int) -> list[int]:
    """The devices that the first of them exchanges with."""
    if kind == "collective-permute":
        pairs = re.search(r"source_target_pairs=\{(\{.*?\})\}", line)
        moved = [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs.group(1))] if pairs else []
        return next(([a, b] for a, b in moved if a != b), [])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return [int(part) for part in listed.group(1).split(",")]
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape, sides, order = (_numbers(part) for part in iota.groups())
        return _ids(sides, order).reshape(shape)[0].tolist()
    if named := NAMED.search(line):
        axes, sides, order, over = named.groups()
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
        ids = _ids(_numbers(sides) or [*sizes.values()], _numbers(order)).reshape([*sizes.values()])
        places = {name: [0] for name in sizes}
        for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", over):
            count = int(size or sizes[name])  # of a part of an axis the places lie apart
            places[name] = [i * sizes[name] // (int(before or 1) * count) for i in range(count)]
        return ids[np.ix_(*places.values())].ravel().tolist()
    return list(range(devices))


def _numbers(text: str | None) -> list[int]:
    return [int(part) for part in text.split(",")] if text else []


def _ids(sides: list[int], order: list[int]) -> np.ndarray:
    ids = np.arange(math.prod(sides)).reshape(sides)
    return ids.transpose(order) if order else ids


def _axes(group: list[int], mesh: dict[str, int]) -> str:
    """Along which axes of the mesh the devices of a group differ."""
    places = np.array(np.unravel_index(group, tuple(mesh.values())))
    return "+".join(name for name, row in zip(mesh, places, strict=True) if len(set(row.tolist())) > 1)
