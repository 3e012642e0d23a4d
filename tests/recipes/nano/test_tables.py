"""The tables of docs/nano.md: what they say of made-up runs; and the page has the real ones."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from grpo.heldout import SegmentScore
from layers_jax.command import run_command
from moshi_jax.demo import Recipe, compare_axes
from moshi_jax.demo.experiment import Result
from moshi_jax.stream import embedded_checkpoint
from recipes.nano import ablations, runs, seeds, tables

AXES = {
    "pause": "pause_handling",
    "turn": "turn_taking",
    "backchannel": "backchanneling",
    "interruption": "user_interruption",
}


def scores(gains, judge=1.0):
    """40 segments an axis; `gains` are added to the same random values."""
    rng = np.random.default_rng(0)
    found = []
    for axis, reward in AXES.items():
        for n in range(40):
            rewards = {reward: rng.normal(size=2) + gains.get(axis, 0.0)}
            if axis in ("turn", "interruption"):
                rewards["judge"] = np.array([judge, np.nan])
            found.append(
                SegmentScore(
                    segment_id=f"c{n // 2}/1/{axis}/{n}",
                    axis=axis,
                    rewards=rewards,
                    kl=0.1,
                    agent=(),
                )
            )
    return found


def write(folder, name, gains, judge=1.0, **recipe):
    base, tuned = scores({}), scores(gains, judge)
    result = Result(
        recipe=Recipe(**recipe),
        axes=compare_axes(base, tuned),
        kl=0.1,
        kl_by_axis={},
        updates=8,
        rollouts=2,
        seconds={"train": 90.0},
    )
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(runs.to_json(result, base, tuned)))


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    write(folder, "seed-0", dict.fromkeys(AXES, 1.0), judge=1.5)
    write(folder, "no-pause", {"pause": -1.0, "turn": 1.0}, judge=1.5)
    write(folder, "no-turn", {**dict.fromkeys(AXES, 1.0), "turn": 2.0}, judge=1.5)
    return folder


def rows(text, first):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(f"| {first} |")
    ]


def test_an_ablation_agrees_disagrees_or_shows_nothing(results):
    rendered = tables.render(results)
    claims = rendered[rendered.index("| without |") :]
    assert [(row[1], row[-1]) for row in rows(claims, "no-pause")] == [
        ("pause", "yes"),  # lower without, as in the paper
        ("turn", "not shown"),  # equal
    ]
    assert [row[-1] for row in rows(claims, "no-turn")] == ["no"]  # higher, the paper's is lower
    assert (
        "Not run: seed-1, seed-2, no-backchannel, no-interruption, no-judge, no-kl, speak-silence."
        in rendered
    )


def test_every_run_is_a_line_of_changes_bold_where_they_are_significant(results):
    rendered = tables.render(results)
    (line,) = rows(rendered, "no-pause")[:1]
    assert line == ["no-pause", "**-1.000**", "**+1.000**", "+0.000", "+0.000", "**+0.500**",
                    "0.100", "8", "1.5"]  # fmt: skip
    seed = rows(rendered, "0")
    assert len(seed) == 4 + 3  # four timing rewards, the judge on two axes and on both
    assert seed[1][1:4] == ["turn", "turn_taking", "40"] and seed[1][-1] == "<0.001"


def test_runs_on_other_segments_are_not_compared(results):
    path = results / "no-pause.json"
    run = json.loads(path.read_text())
    run["segments"][0] = "another"
    path.write_text(json.dumps(run))
    with pytest.raises(ValueError, match="different held-out segments"):
        tables.render(results)


def test_without_the_full_recipe_there_is_nothing_to_say(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no seed-0\.json, expected what .*seeds"):
        tables.render(tmp_path)


def test_tables_go_between_the_marks():
    page = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    new = tables.with_tables(page, "| a |")
    assert new == f"before\n{tables.BEGIN}\n\n| a |\n\n{tables.END}\nafter\n"
    assert tables.with_tables(new, "| a |") == new
    with pytest.raises(ValueError, match="expected one of each"):
        tables.with_tables("nothing", "| a |")


def test_the_page_has_the_committed_figures():
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.with_tables(page, tables.render(tables.RESULTS)) == page


def test_the_committed_figures_are_of_this_recipe_and_this_checkpoint():
    paths = sorted(tables.RESULTS.glob("seed-*.json"))
    assert paths
    for path in paths:
        run = json.loads(path.read_text())
        recipe = asdict(Recipe(seed=int(path.stem.removeprefix("seed-"))))
        assert run["recipe"] == json.loads(json.dumps(recipe))
        assert run["checkpoint"] == runs.checkpoint_hash(embedded_checkpoint())
        assert all(row["comparison"]["segments"] >= 60 for row in run["axes"])


def test_a_result_of_another_checkpoint_is_not_taken_for_done(tmp_path, capsys):
    checkpoint, results = tmp_path / "checkpoint", tmp_path / "results"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    results.mkdir()
    arguments = [str(tmp_path / "work"), "--results", str(results), "--checkpoint", str(checkpoint)]
    done = {"checkpoint": runs.checkpoint_hash(checkpoint)}
    (results / "seed-0.json").write_text(json.dumps(done))
    assert run_command("seeds", seeds.main, [*arguments, "--seeds", "0"]) == 0  # nothing to do
    (checkpoint / "model.safetensors").write_bytes(b"others")
    assert run_command("seeds", seeds.main, [*arguments, "--seeds", "0"]) == 1
    assert "remove it to run anew" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_ablations_change_one_thing_each(tmp_path, capsys):
    assert set(ablations.ABLATIONS) == {
        *(f"no-{axis}" for axis in AXES), "no-judge", "no-kl", "speak-silence",
    }  # fmt: skip
    full = Recipe()
    for changed in ablations.ABLATIONS.values():
        ((name, value),) = changed.items()
        assert getattr(full, name) != value
    arguments = [str(tmp_path), "--only", "no-sleep"]
    assert run_command("ablations", ablations.main, arguments) == 1
    assert "no ablation 'no-sleep'" in capsys.readouterr().err
