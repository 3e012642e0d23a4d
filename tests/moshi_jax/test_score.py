import json
from pathlib import Path

from moshi_jax.cli import main

GOLDEN = Path(__file__).parents[1] / "golden" / "reward_examples.json"


def test_all_recorded_examples_agree_and_one_wrong_fails(tmp_path, capsys):
    assert main(["score", str(GOLDEN)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "54 of 54 agree"
    content = json.loads(GOLDEN.read_text())
    content["advantages"][1]["expected"][0] += 1e-4
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(content))
    assert main(["score", str(wrong)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "53 of 54 agree"
    assert [line.split()[1] for line in lines if line.endswith("DIFFERS")] == ["decoupled_sum"]
