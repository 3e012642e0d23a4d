import os

import jax

from bench import describe_machine


def test_a_figure_says_where_it_was_measured():
    machine = describe_machine("pytest", "a-peer-that-nobody-installed")
    assert machine["jax"] == jax.__version__
    assert machine["cores"] == os.cpu_count()
    assert machine["device"].startswith("cpu")
    assert "pytest" in machine
    assert "a-peer-that-nobody-installed" not in machine
