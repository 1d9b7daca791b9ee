"""An experiment from the command to the page, and again."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from experiments import costs, run, table, train
from experiments.config import load_experiment, names
from experiments.results import read_results
from experiments.table import MEASURED, PAGE, latest, section, with_spread
from experiments.train import Budget, train_variant
from meloformer.errors import MeloFormerError, SettingsError
from meloformer.settings import Settings
from tests.training.conftest import tiny_shards as tiny_shards  # a fixture

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ("model.num_layers=1", "model.dim=32", "model.ffn_dim=48", "training.seq_len=128", "training.batch_size=2")
WORDS = [word for text in (*SMALL, "training.device=cpu") for word in ("--set", text)]


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes 20 ms, and so does a step, on any machine."""
    ticks = count()
    monkeypatch.setattr(train, "_clock", lambda _device: lambda: next(ticks) * 0.02)


@pytest.fixture
def time_costs_twice(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A step of the variant ``time`` takes twice as long as others; counts how many variants were measured at once."""
    sizes: list[int] = []

    def measured(_shards: Path, candidates: dict[str, costs.Candidate]) -> dict[str, float]:
        sizes.append(len(candidates))
        return {key: 1.0 + (one.settings.model.rope == "time") for key, one in candidates.items()}

    monkeypatch.setattr(costs, "_measured", measured)
    return sizes


def test_two_variants_are_trained_measured_written_down_and_not_run_again(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.jsonl"
    words = ["baseline", "--shards", str(tiny_shards), "--results", str(results), "--seeds", "0,1", *WORDS]
    words += ["--variants", "default,plain-both"]
    run.main([*words, "--steps", "3"])
    records = read_results(results)
    assert [(r["variant"], r["seed"], r["steps"]) for r in records] == [
        ("default", 0, 3), ("plain-both", 0, 3), ("default", 1, 3), ("plain-both", 1, 3),
    ]  # fmt: skip
    notes = {r["prediction"]["notes"] for r in records}
    assert len(notes) == 1  # identical rows
    assert records[0]["parameters"] > records[1]["parameters"]
    assert len({r["targets"] for r in records if r["seed"] == 0}) == 1
    text = results.read_text()
    results.write_text(text[: text.rindex("\n", 0, -1) + 20])  # the last line is cut off
    run.main([*words, "--steps", "3"])
    again = read_results(results)
    assert len(again) == 4
    assert again[-1]["prediction"] == records[-1]["prediction"]  # the same seed, the same result
    assert capsys.readouterr().err.count("is there already") == 3

    page = tmp_path / "page.md"
    page.write_bytes(PAGE.read_bytes())
    table.main([str(results), "--page", str(page)])
    shown = page.read_text()
    assert "**After 3 steps.** Rows of 128 tokens" in shown
    ours, plain = (r["prediction"]["model"]["nats_per_note"] for r in records[:2])
    row = next(line for line in shown.splitlines() if line.startswith("| `plain-both`"))
    means = [records[k]["prediction"]["model"]["nats_per_note"] for k in (1, 3)]
    assert f"| {sum(means) / 2:.3f} ± " in row
    assert plain != ours


@pytest.mark.usefixtures("steady_clock")
def test_a_run_may_end_by_the_clock(tiny_shards: Path) -> None:
    settings = load_experiment("positions").settings_of("time", [*SMALL, "training.device=cpu"])
    (outcome,) = train_variant(tiny_shards, settings, [Budget(minutes=0.005)])
    assert outcome.seconds >= 0.3
    assert outcome.steps > 2


def test_one_run_has_both_ends_and_each_is_that_of_a_run_of_its_own(
    tiny_shards: Path, tmp_path: Path, time_costs_twice: list[int]
) -> None:
    words = ["positions", "--shards", str(tiny_shards), "--seeds", "0", "--variants", "both,time", *WORDS]
    words += ["--set", "training.warmup_share=0.4"]  # so that it matters by which end the learning rate rises
    alone, both = tmp_path / "new" / "alone.jsonl", tmp_path / "both.jsonl"
    run.main([*words, "--results", str(alone), "--steps", "10"])
    run.main([*words, "--results", str(alone), "--steps", "10", "--same-time"])  # a run for the other end alone
    run.main([*words, "--results", str(both), "--steps", "10", "--same-time", "--curve-every", "2"])
    wanted = {(record["variant"], record["steps"]): record["prediction"] for record in read_results(alone)}
    found = {(record["variant"], *record["budget"].items()): record for record in read_results(both)}
    in_time, in_steps = (("time_of_steps", 10), ("steps", 10))
    assert {key: (record["steps"], record.get("cost")) for key, record in found.items()} == {
        ("both", in_steps): (10, None), ("both", in_time): (10, 1.0),
        ("time", in_steps): (10, None), ("time", in_time): (5, 2.0),
    }  # fmt: skip
    for (variant, _), record in found.items():
        assert record["prediction"] == wanted[variant, record["steps"]]
    assert [point["steps"] for point in found["time", in_steps]["curve"]] == [2, 4, 6]
    assert len(found) == 4
    page = tmp_path / "page.md"
    page.write_bytes(PAGE.read_bytes())
    table.main([str(both), "--page", str(page)])
    row = next(line for line in page.read_text().splitlines() if line.startswith("| `time`"))
    cells = [cell.strip() for cell in row.split("|")]
    in_ten, in_five = (f"{wanted['time', steps]['model']['nats_per_note']:.3f}" for steps in (10, 5))
    assert [cells[number] for number in (4, 7, 8, 9)] == [in_ten, "2.00", "5", in_five]
    run.main([*words, "--results", str(both), "--steps", "20", "--same-time"])
    assert time_costs_twice == [2, 2]  # once for each file: what was measured side by side is not measured again


def test_several_ends_need_a_learning_rate_that_stays_up(tiny_shards: Path) -> None:
    settings = load_experiment("positions").settings_of("time", ["training.schedule=cosine"])
    with pytest.raises(SettingsError, match="wsd"):
        next(train_variant(tiny_shards, settings, [Budget(steps=2), Budget(minutes=1)]))


def test_costs_are_the_median_of_steps_taken_in_turn(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of Muon takes 2 s, one of AdamW 3; the first of each takes longer, and so does another one."""
    seconds, taken = [0.0], list[str]()

    def take_step(self: train.Run, done: float) -> None:
        assert 0 < done < 1
        name = self.settings.training.optimizer
        taken.append(name)
        seconds[0] += 99 if taken.count(name) in (1, 4) else {"adamw": 3, "muon": 2}[name]

    monkeypatch.setattr(train, "_clock", lambda _device: lambda: seconds[0])
    monkeypatch.setattr(train.Run, "take_step", take_step)
    experiment = load_experiment("optimizers")
    muon, adamw = (
        costs.Candidate(experiment.settings_of(name, list(SMALL)), plain=False) for name in ("muon-8e-3", "adamw-1e-3")
    )
    path = tmp_path / "new" / "r.costs.json"
    sessions = costs.measure_costs(path, tiny_shards, [[muon, adamw]])
    assert costs.relative_cost(muon, adamw, sessions) == 1.5
    assert taken == ["muon", "adamw"] * (costs.ROUNDS + 1)
    assert costs.measure_costs(path, tiny_shards, [[adamw, muon]]) == sessions
    assert len(taken) == 2 * (costs.ROUNDS + 1)  # not again
    dense = costs.Candidate(experiment.settings_of("muon-8e-3", [*SMALL, "model.attention=dense"]), plain=False)
    with pytest.raises(ValueError, match="side by side"):  # the same result, at other costs
        costs.relative_cost(muon, dense, sessions)
    near = costs.Session("here", {muon.key: 1.0, adamw.key: 1 + costs.NOISE / 2})
    assert costs.relative_cost(muon, adamw, [near]) == 1
    monkeypatch.setattr(costs, "machine", lambda: "another machine")
    assert costs.measure_costs(path, tiny_shards, [[muon, adamw]]) != sessions


def test_runs_side_by_side_give_the_same_results_and_equal_settings_run_once(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["optimizers", "types", "--shards", str(tiny_shards), "--seeds", "0", "--steps", "2", *WORDS]
    words += ["--set", "model.attention=auto"]
    apart, beside = tmp_path / "apart.jsonl", tmp_path / "beside.jsonl"
    for path, jobs in ((apart, "1"), (beside, "2")):
        run.main([*words, "--results", str(path), "--jobs", jobs])
    assert capsys.readouterr().err.count("types, off, seed 0: has the settings of optimizers, muon-8e-3") == 2
    told = [{(r["experiment"], r["variant"]): r["prediction"] for r in read_results(path)} for path in (apart, beside)]
    assert told[0] == told[1]
    assert len(told[0]) == 12
    assert told[0]["types", "off"] == told[0]["optimizers", "muon-8e-3"]


def test_a_run_that_fails_does_not_end_the_others(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_variant, results = run.train_variant, tmp_path / "r.jsonl"

    def failing(shards: Path, settings: Settings, *others: Any, **named: Any) -> Any:
        if settings.model.rope == "position":
            raise MeloFormerError("loss was not finite")
        return train_variant(shards, settings, *others, **named)

    monkeypatch.setattr(run, "train_variant", failing)
    words = ["positions", "--shards", str(tiny_shards), "--results", str(results), "--seeds", "0", *WORDS]
    with pytest.raises(SystemExit, match="1 of 4 runs failed"):
        run.main([*words, "--steps", "2"])
    assert [record["variant"] for record in read_results(results)] == ["both", "time", "heads"]
    assert "positions, position, seed 0: loss was not finite" in capsys.readouterr().err


def test_wrong_wishes_are_told(tiny_shards: Path, tmp_path: Path) -> None:
    words = ["--shards", str(tiny_shards), "--results", str(tmp_path / "r.jsonl")]
    with pytest.raises(SystemExit, match="there is no experiment 'none'"):
        run.main(["none", *words])
    with pytest.raises(SystemExit, match="unknown setting"):
        run.main(["positions", *words, "--set", "model.no_such=1"])
    for wrong in (["--jobs", "0"], ["--curve-every", "0"], ["--steps", "-1"]):
        with pytest.raises(SystemExit):
            run.main(["positions", *words, *wrong])
    with pytest.raises(SettingsError):
        load_experiment("positions").settings_of("both", ["model.rope=sideways"])


def test_a_budget_says_how_much_is_done() -> None:
    assert Budget(steps=4).done(1, 99) == 0.25
    assert Budget(minutes=2).done(999, 30) == 0.25
    assert Budget(minutes=2).done(0, 999) == 1


def test_overrides_win_over_the_experiment_and_over_its_variants() -> None:
    settings = load_experiment("positions").settings_of("time", ["training.seq_len=256", "model.rope=both"])
    assert (settings.training.seq_len, settings.model.rope, settings.training.batch_size) == (256, "both", 2)


def test_every_experiment_has_its_place_on_the_page_and_variants_that_differ() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in names():
        experiment = load_experiment(name)
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1
        assert f"## {experiment.title}\n\n{experiment.question}" in text
        different = {
            json.dumps([experiment.variants[v].plain, experiment.settings_of(v).model_dump(mode="json")])
            for v in experiment.variants
        }
        assert len(different) == len(experiment.variants)


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_bytes(PAGE.read_bytes())
    table.main(["--page", str(page)])
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


def test_a_table_may_lack_one_of_both_ends() -> None:
    experiment = load_experiment("positions")
    results = [record for record in read_results(MEASURED / "short.jsonl") if record["experiment"] == "positions"]
    in_time = section(experiment, [record for record in results if "time_of_steps" in record["budget"]])
    in_steps = section(experiment, [record for record in results if "steps" in record["budget"]])
    assert "a step costs" in in_time
    assert "a step costs" not in in_steps
    assert "| `time` |" in in_time


def test_spread_is_half_of_what_lies_between_the_seeds_and_newer_results_replace_older() -> None:
    assert with_spread([1.0, 2.0, 1.5]) == "1.500 ± 0.500"
    assert with_spread([1.0]) == "1.000"
    key = {"experiment": "a", "variant": "b", "seed": 0, "budget": {"steps": 1}, "seq_len": 64, "data": "d"}
    assert latest([{**key, "settings": "old"}, {**key, "settings": "new"}]) == [{**key, "settings": "new"}]
