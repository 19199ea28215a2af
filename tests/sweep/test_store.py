"""The results store: what it reads is what runs wrote, whatever state they are in, and reading is all it does."""

import dataclasses
import math
import random
import re
import shutil

import duckdb
import numpy as np
import pandas as pd
import pytest

from lm.commands.results import Results
from lm.data import Data, Text
from lm.errors import UserError
from lm.models import Decoder
from lm.nn import MLP, Block, mha, mqa
from lm.sweep import Ablation, Sweep, grid, manifest, store
from lm.sweep.manifest import Entry
from lm.train import Run, Training
from lm.train.folder import RunFolder
from lm.train.lock import lock
from lm.train.rows import Rows, RowsError, read

RATE, WIDTH = "train.optimizer.learning_rate", "model.block.ff.hidden"
MIXER = "model.block.mixer"
STATES = ("done", "failed", "interrupted", "new")


def rows_of(seed: int, steps: int) -> list[dict]:
    """Rows as training writes them, with numbers that aren't finite, are missing, or only sometimes there."""
    draw, rows = random.Random(seed), []
    for step in range(1, steps + 1):
        row = {"step": step, "split": "train", "loss": draw.gauss(3, 1), "tokens": step * 128, "seconds": None}
        if draw.random() < 0.2:
            row |= {"loss": draw.choice([math.nan, math.inf, -math.inf])}
        if step % 3 == 0:
            row["seconds"] = draw.random()
        rows.append(row)
        if step in (1, 2, steps):
            rows.append({"step": step, "split": "heldout", "loss": draw.gauss(3, 1), "tokens": step * 128, "o'k": 2})
    return rows


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Two experiments with runs in common: {name: experiment}."""
    text = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for i in range(8):
        (text / f"{i}.txt").write_text("".join(rng.choice(list("abcdefgh \n"), size=200)))
    base = Run(
        model=Decoder(vocab=256, width=16, layers=1, block=Block(mixer=mha(4), ff=MLP(hidden=32))),
        data=Data(corpus=Text(path=str(text)), length=32, batch=4, heldout=0.2),
        train=Training(steps=4),
    )
    return {
        "heads": Ablation(base=base, at=MIXER, arms={"MHA": mha(4), "MQA": mqa(4)}, match="params", seeds=2),
        "rates": Sweep(base=base, points=({}, *grid({RATE: [1e-4, 2e-4]}))),
    }


@pytest.fixture(scope="module")
def template(planned, tmp_path_factory):
    """A folder of results, with manifests and with runs in all states, and {experiment: its runs}."""
    results = tmp_path_factory.mktemp("template")
    found = {name: manifest.manifest(experiment, results) for name, experiment in planned.items()}
    for name, runs in found.items():
        manifest.write(runs, results / name / "manifest.jsonl")
    folders = {entry.id: entry for runs in found.values() for entry in runs}
    for number, entry in enumerate(folders.values()):
        state = STATES[number % len(STATES)]
        if state == "new":
            continue
        entry.folder.create(entry.planned.run, "{}", entry.data, {"start": number})
        with Rows(entry.folder.rows) as file:
            for row in rows_of(number, 90 if number in (0, 2) else 5):  # two are longer than what is looked at first
                file.append(row)
        if state == "done":
            entry.folder.finish({"heldout_loss": 3 - number / 7, "tokens_per_second": None})
        if state == "failed":
            entry.folder.fail(UserError(f"no luck with {number}"))
    assert sum(map(len, found.values())) == len(folders) + 1  # a run that two experiments have in common
    return results, found


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the folder of results."""
    return shutil.copytree(template[0], tmp_path / "results")


@pytest.fixture
def entries(template, folder) -> dict[str, tuple[Entry, ...]]:
    """The runs of each experiment in the copy."""

    def moved(entry: Entry) -> Entry:
        return dataclasses.replace(entry, folder=RunFolder(folder / "runs" / entry.id))

    return {name: tuple(map(moved, those)) for name, those in template[1].items()}


def test_every_run_is_there_once_for_each_of_its_experiments(entries, folder):
    found = store.results(folder)
    runs = [(name, entry) for name, those in sorted(entries.items()) for entry in those]
    assert list(zip(found["experiment"], found["id"], strict=True)) == [(name, entry.id) for name, entry in runs]
    assert len(found) == len(set(found["id"])) + 1
    for (_, entry), row in zip(runs, found.to_dict("records"), strict=True):
        run = entry.planned.run
        assert row["status"] == entry.status() and row["arm"] == entry.planned.arm and row["seed"] == entry.planned.seed
        assert (row["tokens"], row["flops"]) == (run.tokens, run.flops) and row["data"] == entry.data
        done = row["status"] == "done"
        assert row["heldout_loss"] == entry.folder.result()["heldout_loss"] if done else math.isnan(row["heldout_loss"])
        assert row["error"] == entry.folder.failure() if row["status"] == "failed" else pd.isna(row["error"])
    assert set(found["status"]) == set(STATES)
    assert "config" not in found and "point" not in found


def test_what_was_varied_has_a_column_with_every_runs_value(entries, folder):
    found = store.results(folder)
    rates, heads = found[found["experiment"] == "rates"], found[found["experiment"] == "heads"]
    default = entries["rates"][0].planned.run.train.optimizer.learning_rate  # its point doesn't say: its config does
    assert list(rates[RATE]) == [default, 1e-4, 2e-4] and heads[RATE].isna().all()
    assert set(heads[MIXER]) == {"Attention(heads=4, kv_heads=4)", "Attention(heads=4, kv_heads=1)"}
    hidden = {entry.planned.arm: entry.planned.run.model.block.ff.hidden for entry in entries["heads"]}
    assert heads[WIDTH].tolist() == [hidden[arm] for arm in heads["arm"]] and len(set(hidden.values())) == 2


def test_a_swept_seed_is_the_runs_own(planned, tmp_path):
    sweep = Sweep(base=planned["rates"].base, points=grid({"seed": [10, 20]}), seeds=2)
    manifest.write(manifest.manifest(sweep, tmp_path), tmp_path / "seeds" / "manifest.jsonl")
    assert store.results(tmp_path)["seed"].tolist() == [10, 20, 11, 21]


def test_sources(entries, folder, tmp_path, monkeypatch):
    whole = store.results(folder)
    one = whole[whole["experiment"] == "heads"].dropna(axis="columns", how="all").reset_index(drop=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heads.py").write_text("raise SystemExit('only its name is needed')")
    (tmp_path / "other.py").touch()
    (folder / "other-smoke").mkdir()
    (folder / "other-smoke" / "manifest.jsonl").touch()
    pd.testing.assert_frame_equal(store.results(), whole)
    for source in (folder / "heads", folder / "heads" / "manifest.jsonl", "heads.py"):
        pd.testing.assert_frame_equal(store.results(source).dropna(axis="columns", how="all"), one, check_dtype=False)
    for source, words in {
        "nowhere": r"no results in .*nowhere; lm sweep run",
        folder / "runs": r"did you mean .*results\?",
        "nothing.py": "no experiment file nothing.py",
        "other.py": "there are results/other-smoke",
    }.items():
        with pytest.raises(store.StoreError, match=words):
            store.results(source)


def test_damage_is_named(entries, folder):
    done = next(entry for entry in entries["heads"] if entry.status() == "done")
    (done.folder.path / "result.json").write_text("{")
    with pytest.raises(store.StoreError, match=r"result\.json is damaged"):
        store.results(folder)
    with open(folder / "heads" / "manifest.jsonl", "a") as file:
        file.write('{"id": "1"}\n')
    with pytest.raises(store.StoreError, match=r"manifest\.jsonl line 5 is no run of a manifest: it has no arm"):
        store.results(folder)


# ---- rows -------------------------------------------------------------------------------------------------------


def same(found: object, wanted: object) -> bool:
    """Equal, where missing and NaN are one, as in a pandas column of numbers."""
    return found == wanted or (pd.isna(wanted) and pd.isna(found))  # type: ignore[arg-type]


def test_curves_are_the_rows_that_runs_wrote(entries, folder):
    torn = next(entry for entry in entries["heads"] if entry.status() == "interrupted")
    with open(torn.folder.rows, "a") as file:
        file.write('{"step": 6, "lo')
    other = next(entry for entry in entries["heads"] if entry.status() == "new")
    other.folder.path.mkdir()
    other.folder.rows.touch()
    found = store.curves(folder)
    rows = [
        {"experiment": name, "id": entry.id, "arm": entry.planned.arm, "seed": entry.planned.seed, **row}
        for name, those in sorted(entries.items())
        for entry in those
        for row in read(entry.folder.rows)
    ]
    assert len(found) == len(rows) > 0
    names = {name for row in rows for name in row}
    assert set(found.columns) == names | {"flops"} and "o'k" in names
    for got, row in zip(found.to_dict("records"), rows, strict=True):
        assert all(same(got[name], row.get(name)) for name in names)
    shares = (found["flops"] / found["tokens"]).groupby(found["id"]).unique().map(list)
    assert all(shares[e.id] == [e.planned.run.flops / e.planned.run.tokens] for e in entries["heads"] if e.id in shares)
    heldout = store.curves(folder, split="heldout")
    assert heldout["loss"].tolist() == found.loc[found["split"] == "heldout", "loss"].tolist()


QUERIES = (
    "select id, min(loss) as least, count(*) as n from rows group by id order by id",
    "select count(*) as n from rows",
    "select count(*) as n, count(seconds) as m from rows where split = 'train' and not isnan(loss)",
    "select * from rows order by id, step, split",
    "select * exclude (loss) from rows where loss > 3 order by all",
    'select sum("o\'k") as s, max(step) as m from rows',
    "with x as (from rows) select split, sum(tokens) as t from x group by split order by split",
    "select r.seconds, h.loss from rows r join rows h using (id, step) where r.split < h.split order by all",
    "select arm, avg(rows.loss) as mean from rows join runs using (id) where isfinite(loss) group by arm order by arm",
    "select id in (select id from rows where seconds > 0) as has from runs order by has",
    "select 1 as one from rows where false",
)


@pytest.mark.parametrize("sql", QUERIES)
def test_sql_over_files_is_sql_over_the_rows_in_them(entries, folder, sql):
    """What is read of each file is only what a query needs; it must not show."""
    folders = {entry.id: entry.folder for those in entries.values() for entry in those}
    lines = [{"id": name, **row} for name, home in folders.items() for row in read(home.rows)]
    columns = ("id", *store.query("select * from rows limit 0", folder).columns[1:])
    with duckdb.connect() as plain:
        kinds = {"id": "VARCHAR", "split": "VARCHAR", "step": "BIGINT", "tokens": "BIGINT"}
        declared = ", ".join(f'"{name}" {kinds.get(name, "DOUBLE")}' for name in columns)
        plain.execute(f"create table rows ({declared})")
        marks = ", ".join("?" * len(columns))
        plain.executemany(f"insert into rows values ({marks})", [[row.get(c) for c in columns] for row in lines])
        plain.execute("create table runs (id varchar, arm varchar)")
        listed = [[entry.id, entry.planned.arm] for those in entries.values() for entry in those]
        plain.executemany("insert into runs values (?, ?)", listed)
        wanted = plain.execute(sql).fetchall()
    found = store.query(sql, folder)
    assert len(found) == len(wanted) and (wanted or "false" in sql)
    for got, row in zip(found.itertuples(index=False), wanted, strict=True):
        assert all(same(a, b) or math.isclose(a, b, rel_tol=1e-12) for a, b in zip(got, row, strict=True)), (got, row)


def test_what_is_no_number_is_not_what_is_missing(entries, folder):
    every = [
        row for e in {e.id: e for those in entries.values() for e in those}.values() for row in read(e.folder.rows)
    ]
    found = store.query(
        "select count(*) filter (isnan(loss)) as nans, count(*) filter (isinf(loss)) as infinite, "
        "count(*) filter (loss is null) as losses, count(*) filter (seconds is null) as seconds from rows",
        folder,
    )
    assert found.to_dict("records") == [
        {
            "nans": sum(math.isnan(row["loss"]) for row in every),
            "infinite": sum(math.isinf(row["loss"]) for row in every),
            "losses": 0,
            "seconds": sum(row.get("seconds") is None for row in every),
        }
    ]
    assert (found > 0).to_numpy().sum() == 3


def test_a_name_that_only_rows_in_the_middle_have_is_found_when_asked_for(entries, folder):
    home = next(entry.folder for entry in entries["rates"] if len(read(entry.folder.rows)) > 80)
    assert home.rows.stat().st_size > 8192  # else it would all be looked at anyway
    lines = home.rows.read_text().splitlines(keepends=True)
    lines.insert(len(lines) // 2, '{"step": 40, "split": "probe", "rare": 1.5, "list": [1, 2], "a word": "x"}\n')
    home.rows.write_text("".join(lines))
    assert store.query("select sum(rare) as rare from rows", folder)["rare"].tolist() == [1.5]
    assert store.query('select "a word", list from rows where rare > 0', folder).to_numpy().tolist() == [["x", "[1,2]"]]
    assert store.curves(folder, "probe")[["rare", "a word"]].to_numpy().tolist() == [[1.5, "x"]] * 2
    with pytest.raises(UserError, match="rarer"):
        store.query("select rarer from rows", folder)


def test_a_name_that_only_the_last_row_has_is_there_at_once(entries, folder):
    home = next(entry.folder for entry in entries["rates"] if len(read(entry.folder.rows)) > 80)
    with Rows(home.rows) as file:
        file.append({"step": 90, "split": "test", "at_last": 1.5})
    assert "at_last" in store.query("select * from rows", folder).columns


@pytest.mark.parametrize("torn", ['{"step": 6, "lo', '{"step": 6, "lo\n', "\x00" * 8, "{"])
def test_a_run_that_writes_or_was_killed_while_it_did_can_be_read(entries, folder, torn):
    homes = {entry.id: entry.folder for entry in entries["heads"]}
    names = [name for name, home in homes.items() if home.status() == "interrupted"]
    assert any(homes[name].rows.stat().st_size > 8192 for name in names)
    wanted = {name: len(read(home.rows)) for name, home in homes.items() if home.rows.exists()}
    for name in names:
        with open(homes[name].rows, "a") as file:
            file.write(torn)
    with lock(homes[names[0]].path):
        assert store.results(folder / "heads").set_index("id")["status"][names[0]] == "running"
        found = store.query("select id, count(*) as n from rows group by id", folder / "heads")
    assert dict(zip(found["id"], found["n"], strict=True)) == wanted
    assert all(homes[name].rows.read_bytes().endswith(torn.encode()) for name in names)  # reading mends nothing


def test_a_bad_line_inside_is_an_error_with_its_number(entries, folder):
    home = next(entry.folder for entry in entries["rates"] if len(read(entry.folder.rows)) > 80)
    lines = home.rows.read_text().splitlines(keepends=True)
    for number in (40, 2):  # far from the ends, and where names are looked for
        lines[number - 1] = '{"step":\n'
        home.rows.write_text("".join(lines))
        with pytest.raises(RowsError, match=rf"{home.path.name}.*rows.jsonl line {number} isn't JSON"):
            store.query("select sum(loss) from rows", folder)


def test_before_any_row_is_written(planned, tmp_path):
    manifest.write(manifest.manifest(planned["rates"], tmp_path), tmp_path / "rates" / "manifest.jsonl")
    assert set(store.results(tmp_path)["status"]) == {"new"} and len(store.results(tmp_path)) == 3
    assert store.query("select step, loss from rows where loss < 3", tmp_path).empty
    assert store.curves(tmp_path).empty and {"id", "arm", "loss"} <= set(store.curves(tmp_path).columns)


# ---- only reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{out}'",
        "copy runs to '{runs}/x.csv'",
        "attach '{out}'",
        "install httpfs",
        "create table x as select 1",
        "select 1; copy (select 1) to '{out}'",
        "explain analyze copy (select 1) to '{out}'",
        "set enable_external_access = true",
        "export database '{out}'",
        "",
        "select * from read_text('{secret}')",
        "select * from '{secret}'",
        "select * from glob('{secret}*')",
        "select * from read_text('{runs}/../../secret.txt')",
        "select frame.id from frame",  # a variable of the code that asks
    ],
)
def test_a_query_can_neither_write_nor_read_elsewhere(entries, folder, tmp_path, sql):
    (tmp_path / "secret.txt").write_text("secret")
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    frame = store.results(folder)
    with pytest.raises(UserError) as refused:
        store.query(sql.format(out=tmp_path / "out", runs=folder / "runs", secret=tmp_path / "secret.txt"), folder)
    assert len(frame) and "\n" not in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


@pytest.mark.parametrize("sql", ["select nope from runs", "select * from tables", "selec 1", "select group from runs"])
def test_an_error_in_sql_names_every_view_and_column(entries, folder, sql):
    with pytest.raises(UserError) as refused:
        store.query(sql, folder)
    said = str(refused.value)
    assert "\n" not in said
    views = dict(re.findall(r"(runs|manifest|rows) \((.*?)\)", said))
    for name in ("runs", "manifest", "rows"):
        columns = store.query(f"select * from {name} limit 0", folder).columns
        assert {c.strip().strip('"') for c in views[name].split(",")} == set(columns)
        assert not store.query(f"select {views[name]} from {name}", folder).empty  # as they have to be written


def test_the_manifest_can_be_asked_for_any_part_of_a_config(entries, folder):
    found = store.query("select id, (config->>'$.model.width')::int as width from manifest", folder)
    assert set(found["width"]) == {16} and len(found) == sum(map(len, entries.values()))


# ---- files and the command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_what_is_exported_is_what_was_there(entries, folder, tmp_path, suffix):
    path = tmp_path / f"runs.{suffix}"
    store.export(folder, path)
    if suffix == "parquet":
        with duckdb.connect() as connection:
            found = connection.execute("select * from read_parquet($path)", {"path": str(path)}).df()
    else:
        found = pd.read_csv(path, float_precision="round_trip") if suffix == "csv" else pd.DataFrame(read(path))
    wanted = store.results(folder)
    assert list(found.columns) == list(wanted.columns)
    for got, row in zip(found.to_dict("records"), wanted.to_dict("records"), strict=True):
        assert all(same(got[name], value) for name, value in row.items())
    store.export(folder, path)  # again, over what is there


def test_numbers_that_are_not_finite_and_lists_survive_json_lines(entries, folder, tmp_path):
    frame = store.query("select 'inf'::double as a, null as b, [1.5, 2.5] as c, 'x' as d", folder)
    store.write(frame, tmp_path / "x.jsonl")
    assert read(tmp_path / "x.jsonl") == [{"a": math.inf, "b": None, "c": [1.5, 2.5], "d": "x"}]
    with pytest.raises(store.StoreError, match=r"\.csv, \.parquet or \.jsonl"):
        store.write(frame, tmp_path / "x.xls")


def test_the_command(entries, folder, tmp_path, capsys):
    assert Results(results=str(folder))() == 0
    listed = capsys.readouterr().out
    assert all(entry.id in listed for those in entries.values() for entry in those)
    assert "7 runs: " in listed and "no luck with" in listed
    assert Results(sql='select arm, [seed] as "{a:b}" from runs where seed = 1', results=str(folder))() == 0
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["arm", "{a:b}"] and [line.split() for line in lines] == [["MHA", "[1]"], ["MQA", "[1]"]]
    assert Results(results=str(folder), out=str(tmp_path / "all.csv"))() == 0
    assert "7 rows" in capsys.readouterr().out and len(pd.read_csv(tmp_path / "all.csv")) == 7
