"""The pages and the answers to their scripts. Every page is whole without its script but for tables and curves."""

from __future__ import annotations

import hashlib
import json
import shlex
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response

from lm.board import words
from lm.board.reading import Reader, Row
from lm.board.run_files import RunFiles, differences

MOST_RUNS = 64  # whose curves are sent at a time
PATCH_SHOWN = 40_000  # characters
ROWS_SHOWN = 8
FILE_TYPES = {
    ".html": "text/html", ".png": "image/png", ".svg": "image/svg+xml",
    ".csv": "text/plain", ".json": "text/plain", ".jsonl": "text/plain",
}  # fmt: skip
# A report brings its own style and its figures inside it; whatever else it may hold must not run here.
FILE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("lm.board", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_environment.filters.update(ago=words.ago, cell=words.cell, literal=words.literal, duration=words.duration)


def experiments(request: Request) -> Response:
    return _page(request, "experiments.html", live=True, experiments=_reader(request).experiments())


def experiment(request: Request) -> Response:
    reader, name = _reader(request), request.path_params.get("name")
    reader.runs_of(name)  # raises where there is none
    address = "/api/other" if name is None else f"/api/e/{quote(name, safe='')}"
    about, report = reader.said(name), reader.has_report(name)
    return _page(request, "experiment.html", live=True, name=name, address=address, about=about, report=report)


def experiment_data(request: Request) -> Response:
    return _data(request, _reader(request).experiment(request.path_params.get("name")))


def experiment_file(request: Request) -> Response:
    name = request.path_params["file"]
    path = _reader(request).file(request.path_params["name"], name)
    kind = FILE_TYPES.get(path.suffix)
    if kind is None:
        raise HTTPException(404, f"files that end in {path.suffix!r} aren't shown")
    return FileResponse(path, media_type=kind, headers={"Content-Security-Policy": FILE_POLICY})


def curves(request: Request) -> Response:
    names = request.query_params.getlist("run")
    if len(names) > MOST_RUNS:
        raise HTTPException(400, f"{len(names)} curves are too many, {MOST_RUNS} are drawn at a time")
    try:
        smoothing = float(request.query_params.get("smooth", "0"))
    except ValueError:
        smoothing = -1.0
    if not 0 <= smoothing < 1:
        raise HTTPException(400, "smooth is a number from 0 to below 1")
    return _data(request, _reader(request).curves(names, smoothing))


def run(request: Request) -> Response:
    reader, name = _reader(request), request.path_params["id"]
    found, files = reader.run(name), reader.files(name)
    rows = [{k: v for k, v in row.items() if v is not None} for row in files.last_rows()[-ROWS_SHOWN:]]
    first = ("step", "split", "loss", "tokens")
    named = dict.fromkeys(key for row in rows for key in row)
    names = [key for key in first if key in named] + [key for key in named if key not in first]
    data, starts = files.provenance()
    return _page(
        request,
        "run.html",
        live=True,
        run=found | {"label": _label(found)},
        numbers=_numbers(found),
        traceback=files.traceback() if found["status"] == "failed" else "",
        rows=[{key: row.get(key) for key in names} for row in rows],
        row_names=names,
        config=files.config(),
        data=data,
        starts=[_start(start) for start in starts],
    )


def diff(request: Request) -> Response:
    """What differs between two runs: config, results, and where they came from."""
    reader = _reader(request)
    names = [request.query_params.get(side) for side in ("a", "b")]
    if None in names:
        raise HTTPException(400, "two runs are compared: /diff?a=RUN&b=RUN")
    pair = [(reader.run(str(name)), reader.files(str(name))) for name in names]
    (a, _), (b, _) = pair
    sections = []
    for heading, tables in (
        ("Config", [files.config() for _, files in pair]),
        ("Results", [dict(_numbers(row)) for row, _ in pair]),
        ("Provenance", [_came_from(files) for _, files in pair]),
    ):
        rows = [(path, words.literal(left), words.literal(right)) for path, left, right in differences(*tables)]
        sections.append((heading, rows))
    labels = [row | {"label": _label(row)} for row in (a, b)]
    return _page(request, "diff.html", live=False, a=labels[0], b=labels[1], sections=sections)


def error(request: Request, status: int, line: str) -> Response:
    """An error as a page, or as JSON for a script."""
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": line}, status)
    return _page(request, "error.html", status, live=False, status=status, line=line)


def _reader(request: Request) -> Reader:
    return request.app.state.reader


def _page(request: Request, template: str, code: int = 200, **values: Any) -> Response:
    text = _environment.get_template(template).render(results=_reader(request).folder.name or "results", **values)
    return HTMLResponse(text, code, headers={"Cache-Control": "no-store"})


def _data(request: Request, value: Any) -> Response:
    """JSON that is sent once: who has it already hears so."""
    body = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    headers = {"ETag": f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"', "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _label(row: Row) -> str:
    name = row["arm"] or row["id"]
    return name if row["seed"] is None else f"{name} seed {row['seed']}"


def _numbers(row: Row) -> list[tuple[str, str]]:
    """The numbers of a run that are known, as they are read."""
    shown = (
        ("held-out loss", "heldout_loss", "{:.4f}".format),
        ("bits/byte", "heldout_bpb", "{:.4f}".format),
        ("accuracy", "heldout_accuracy", "{:.1%}".format),
        ("parameters", "params", "{:,.0f}".format),
        ("tokens", "tokens", "{:,.0f}".format),
        ("FLOPs", "flops", "{:.3e}".format),
        ("tokens/s", "tokens_per_second", "{:,.0f}".format),
        ("training time", "seconds", words.duration),
        ("memory", "memory", words.memory),
    )
    return [(name, say(row[key])) for name, key, say in shown if row[key] is not None]


def _start(start: Row) -> Row:
    """One start of a run: time, what is said of it, and the patch where the code wasn't what was committed."""
    patch = (start.get("git") or {}).get("patch") or ""
    return {
        "time": start.get("time", ""),
        "facts": [(name.replace("_", " "), value) for name, value in _facts(start).items()],
        "patch": patch[:PATCH_SHOWN],
        "patch_cut": len(patch) > PATCH_SHOWN,
    }


def _facts(start: Row) -> dict[str, str]:
    git = start.get("git") or {}
    command = start.get("command")
    facts = {
        "command": shlex.join(map(str, command)) if isinstance(command, list) else command,
        "commit": f"{git['commit']}{', with changes' if git.get('dirty') else ''}" if git.get("commit") else None,
        "devices": _listed(start.get("devices"), "{value} \N{MULTIPLICATION SIGN} {name}"),
        "backend": start.get("backend"),
        "processes": start.get("processes"),
        "packages": _listed(start.get("packages"), "{name} {value}"),
        "python": start.get("python"),
        "platform": start.get("platform"),
        "environment": _listed(start.get("environment"), "{name}={value}"),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _listed(table: Any, form: str) -> str | None:
    if not isinstance(table, dict):
        return None
    return ", ".join(form.format(name=name, value=value) for name, value in table.items())


def _came_from(files: RunFiles) -> dict[str, Any]:
    """Provenance of a run's last start, flat, without what differs between any two starts."""
    data, starts = files.provenance()
    facts = _facts(starts[-1]) if starts else {}
    packages = (starts[-1].get("packages") or {}) if starts else {}
    return {
        "data": data,
        **{k: v for k, v in facts.items() if k != "packages"},
        **{f"packages.{k}": v for k, v in packages.items()},
    }
