import json

import pytest

from bench.conversion import main, scaled
from helium_jax import personaplex_7b


def test_the_whole_size_is_the_released_one():
    assert scaled(1.0) == personaplex_7b()


def test_a_smaller_one_keeps_the_family():
    small = scaled(1e-4)
    assert (small.n_q, small.dep_q, small.delays) == (16, 16, personaplex_7b().delays)
    assert small.dim < 512 and small.num_layers < 4


@pytest.mark.slow
def test_a_small_file_comes_back_identical_and_is_measured(tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert main(["--scale", "0.0002", "--folder", str(tmp_path), "--json-out", str(out)]) == 0
    assert "there and back   identical bytes" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert figures["same"] is True
    assert set(figures["stages"]) == {"copy", "to-jax", "to-torch"}
    for stage in figures["stages"].values():
        assert stage["seconds"] > 0 and stage["peak_bytes"] > 50e6
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]  # nothing is left
