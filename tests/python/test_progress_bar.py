"""The bar of a run in a script; a notebook's is the same object."""

import io
import sys

import pytest

import bitnet_perfgate as gate
from conftest import DEQUANTIZE, TINY_MODEL


def test_a_run_fills_the_bar() -> None:
    stream = io.StringIO()
    bar = gate.ProgressBar(stream)
    gate.crossval(workloads=[DEQUANTIZE], progress=bar)
    shown = stream.getvalue()
    assert DEQUANTIZE in shown
    assert "%|" in shown
    bar.close()
    # It serves another run, and functions that count tokens.
    gate.generate(TINY_MODEL, [1, 2, 3], 4, progress=bar)
    bar.close()
    assert "100%" in stream.getvalue()[len(shown) :]


def test_more_steps_than_there_are_fill_it_and_no_more() -> None:
    stream = io.StringIO()
    bar = gate.ProgressBar(stream)
    bar(3, 3, 0.5, "beyond", "timing")
    bar(0, 0, 0.0, "nothing to do", "timing")
    bar(0, 1, 0.0, "one launch can confirm 3 %", "plan")
    bar.close()
    bar.close()
    assert "100%" in stream.getvalue()
    assert "one launch can confirm 3 %" in stream.getvalue()


def test_without_tqdm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"bitnet-perfgate\[notebook\]"):
        gate.ProgressBar()
