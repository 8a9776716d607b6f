"""Python callables as backends: right ones are timed, wrong ones fail by name, none takes anything down."""

import doctest
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import bitnet_perfgate as gate
from bitnet_perfgate import callables, display
from conftest import DECODE, DEQUANTIZE, PRODUCT, REPOSITORY, environment

PRODUCTS = ["overhead/call", PRODUCT, "matmul/tl1/640x2560/b4/t1/hot", "matmul/tl2/640x2560/b1/t1/hot"]
RIGHT = """
import numpy as np
import bitnet_perfgate as gate

calls = 0

@gate.backend("by-numpy")
class ByNumpy:
    def prepare(self, weights):
        print("noise on stdout")
        return gate.unpack(weights).T.astype(np.float32)

    def matmul(self, prepared, x):
        global calls
        calls += 1
        return (x.astype(np.float32) @ prepared).astype(np.int32)

@gate.backend("from-oracle")
def from_oracle(weights, x):
    return gate.matmul(weights, x, backend="rust-scalar")
"""


def right(weights: gate.PackedWeights, x: Any) -> Any:
    return gate.matmul(weights, x)


def only(result: gate.Result, name: str) -> list[Any]:
    return [row for row in result.recording.agreements if row["backend"] == name]


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A module of callables that other processes can import too."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "callables_of_a_test.py").write_text(RIGHT)
    sys.path.insert(0, str(folder))
    import callables_of_a_test  # type: ignore[import-not-found]

    yield callables_of_a_test
    sys.path.remove(str(folder))
    del sys.modules["callables_of_a_test"]


def decaying() -> gate.CallableBackend:
    """Right in the first calls only; nothing that another process could import."""
    calls = 0

    def decays(weights: gate.PackedWeights, x: Any) -> Any:
        nonlocal calls
        calls += 1
        return gate.matmul(weights, x) * (1 if calls < 5 else 2)

    return gate.backend("decays")(decays)


@pytest.fixture(scope="session")
def timed(module: Any) -> gate.Result:
    """Callables and the fastest C++ backend, and nobody else."""
    brought = [module.ByNumpy, module.from_oracle, decaying()]
    return gate.measure(*brought, workloads=[PRODUCT])


def test_a_right_callable_agrees_on_every_format() -> None:
    mine = gate.backend("mine")(right)
    result = gate.parity(mine, workloads=[*PRODUCTS, DEQUANTIZE, DECODE])
    rows = only(result, "mine@python")
    assert [row["workload"] for row in rows] == [*PRODUCTS, DECODE]
    assert all(row["exact"] and row["compared"] > 0 for row in rows)
    skipped = [row for row in result.recording.skipped if "mine@python" in row["what"]]
    assert f"{DEQUANTIZE} on mine@python" in [row["what"] for row in skipped]
    assert all("does not support" in row["reason"] for row in skipped)
    assert set(result.empty_calls) == {(workload, "mine@python") for workload in PRODUCTS}
    assert all(ns > 0 for ns in result.empty_calls.values())


def test_a_callable_is_timed_in_fresh_processes(module: Any, timed: gate.Result) -> None:
    recording = timed.recording
    assert recording.incomplete is None
    assert module.calls == 0, "it was called in this process"
    for name in ("by-numpy@python", "from-oracle@python"):
        (row,) = only(timed, name)
        assert row["exact"]
        assert row["metrics"]["empty_call_ns"] == timed.empty_calls[PRODUCT, name] > 0
        series = [s for s in recording["series"] if (s["backend"], s["meter"]) == (name, "wall_ns")]
        launches = {launch for s in series for launch in s["launch"]}
        assert len(launches) >= 2
        (shown,) = [row for row in timed.table if row.subject == name]
        assert shown.verdict == "-"
        assert shown.subject_ns is not None
        assert shown.subject_ns > 0
    (described,) = [b for b in recording["plan"]["backends"] if b["name"] == "by-numpy@python"]
    assert described["compiler"] == sys.implementation.name
    assert described["source_hash"]
    assert "by-numpy@python" in recording["plan"]["requested"]


def test_what_a_call_costs_is_shown(timed: gate.Result) -> None:
    console = Console(width=120, record=True)
    display.show_result(console, timed, [], 0)
    text = " ".join(console.export_text().split())
    assert "Included: the way into Python, by an empty call" in text
    assert re.search(rf"{PRODUCT} on by-numpy@python: \d+\.\d of \d+\.\d us", text)


def test_a_callable_that_decays_is_not_timed(timed: gate.Result) -> None:
    (row,) = only(timed, "decays@python")
    assert row["when"] == "after timing"
    assert not row["exact"]
    assert timed.verdict.verdict == "fail"
    assert "decays@python" not in {series["backend"] for series in timed.recording["series"]}


@pytest.mark.parametrize("name", ["ByNumpy", "from_oracle"])
def test_what_a_notebook_defines_is_carried(name: str) -> None:
    """`__main__` is no module that another process could import."""
    notebook: dict[str, Any] = {"__name__": "__main__"}
    exec(RIGHT, notebook)
    mine = notebook[name]
    place = callables.address(mine)
    assert "pickled" in json.loads(place)
    code = (
        "import sys; from bitnet_perfgate import callables\n"
        "print(callables.code_hash(callables.found(*sys.argv[1:]).target))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, mine.name, place], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [callables.code_hash(mine.target)]


def test_without_cloudpickle_a_local_function_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def local(weights: Any, x: Any) -> Any:
        return right(weights, x)

    mine = gate.backend("mine")(local)
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(
        gate.InputError, match=r"mine@python.*module of its own.*bitnet-perfgate\[callables\]"
    ):
        gate.run(workloads=[PRODUCT], callables=[mine])
    assert only(gate.crossval(workloads=[PRODUCT], callables=[mine]), "mine@python")[0]["exact"]


def test_what_cannot_be_carried_is_refused() -> None:
    lock = threading.Lock()

    def locked(weights: Any, x: Any) -> Any:
        with lock:
            return right(weights, x)

    with pytest.raises(gate.InputError, match="cannot be carried to a fresh process"):
        gate.run(workloads=[PRODUCT], callables=[gate.backend("mine")(locked)])
    large = np.zeros(callables.MOST_PICKLED_BYTES, np.uint8)

    def heavy(weights: Any, x: Any) -> Any:
        return right(weights, x) + large[0]

    with pytest.raises(gate.InputError, match="expected at most 8388608: make large data in prepare"):
        gate.run(workloads=[PRODUCT], callables=[gate.backend("mine")(heavy)])


def test_a_module_that_has_changed_since_is_refused(module: Any) -> None:
    file = Path(module.__file__)
    file.write_text(RIGHT.replace('backend="rust-scalar"', 'backend="rust-avx2"'))
    try:
        with pytest.raises(gate.InputError, match=r"from-oracle@python: .*has changed since it was imported"):
            gate.run(workloads=[PRODUCT], callables=[module.from_oracle])
    finally:
        file.write_text(RIGHT)


def raises(_weights: Any, _x: Any) -> Any:
    raise ZeroDivisionError("of the kernel")


def leaves(_weights: Any, _x: Any) -> Any:
    sys.exit(3)


@pytest.mark.parametrize(
    ("product", "cause"),
    [
        (raises, "ZeroDivisionError: of the kernel (.*test_callables.py, line "),
        (leaves, "SystemExit: 3 (.*test_callables.py, line "),
        (lambda _w, _x: None, "returned a <class 'NoneType'>, expected int32 of shape (1, 640)"),
        (lambda w, x: right(w, x).tolist(), "returned a <class 'list'>, expected int32 of shape (1, 640)"),
        (
            lambda w, x: right(w, x).astype(float),
            "returned float64 of shape (1, 640), expected int32 of shape",
        ),
        (lambda w, x: right(w, x).astype(np.int64), "returned int64 of shape (1, 640), expected int32"),
        (lambda w, x: right(w, x).astype(">i4"), "returned >i4 of shape (1, 640), expected int32"),
        (lambda w, x: right(w, x)[0], "returned int32 of shape (640,), expected int32 of shape (1, 640)"),
        (lambda w, x: right(w, x).T, "returned int32 of shape (640, 1), expected"),
        (lambda w, x: right(w, x)[:, 1:], "returned int32 of shape (1, 639), expected"),
        (lambda w, x: np.ma.masked_array(right(w, x)), "returned a masked array: .*.filled(0)"),
        (lambda w, x: -right(w, x), "every product has the opposite sign"),
        (lambda w, x: right(w, x) + 1, None),
        (lambda _w, _x: np.full((1, 640), 0x5A5A5A5A, np.int32), None),
    ],
)
def test_a_wrong_callable_fails_by_name(product: Callable[..., Any], cause: str | None) -> None:
    wrong, mine = gate.backend("wrong")(product), gate.backend("mine")(right)
    result = gate.parity(wrong, mine, workloads=[PRODUCT])
    assert result.verdict.verdict == "fail"
    (failure,) = result.verdict["agreement"]["failures"]
    assert failure["backend"] == "wrong@python"
    (row,) = only(result, "wrong@python")
    if cause:
        words = cause.split(".*")
        assert all(word in row["cause"] for word in words), row["cause"]
    else:
        assert row["mismatches"] > 0
    # The others are compared all the same; what a call costs is said of who agrees.
    assert only(result, "mine@python")[0]["exact"]
    assert set(result.empty_calls) == {(PRODUCT, "mine@python")}


def test_a_process_that_a_callable_ends_is_no_pass() -> None:
    def ends(_weights: Any, _x: Any) -> Any:
        os._exit(7)

    result = gate.run(workloads=[PRODUCT], callables=[gate.backend("ends")(ends)])
    assert "ended with exit code 7" in str(result.recording.incomplete)
    assert result.verdict.verdict != "pass"
    assert "ends@python" in result.recording.backends


def test_what_a_callable_prints_is_no_part_of_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    def noisy(weights: gate.PackedWeights, x: Any) -> Any:
        print("noise of a callable")
        return right(weights, x)

    def progress(*_: object) -> None:
        print("a step")

    result = gate.crossval(
        workloads=[PRODUCT],
        backends=["rust-scalar"],
        callables=[gate.backend("noisy")(noisy)],
        progress=progress,
    )
    print(result.recording.to_json())
    shown = capsys.readouterr()
    assert "noise of a callable" in shown.err
    *steps, document = shown.out.splitlines()
    assert set(steps) == {"a step"}
    assert only(gate.Result.of(gate.Recording(json.loads(document)), result.verdict), "noisy@python")


def test_a_failing_prepare_is_named() -> None:
    @gate.backend("unready")
    class Unready:
        def prepare(self, _weights: Any) -> Any:
            raise KeyError("tables")

        def matmul(self, prepared: Any, x: Any) -> Any:
            return right(prepared, x)

    rows = only(gate.parity(Unready, workloads=[PRODUCT]), "unready@python")
    assert {row["workload"].split("/")[0] for row in rows} == {"matmul", "accuracy"}
    assert all("prepare: KeyError: 'tables'" in row["cause"] for row in rows)


def test_a_callable_may_keep_and_overwrite_what_it_is_given() -> None:
    kept = []

    def keeps(weights: gate.PackedWeights, x: Any) -> Any:
        products = right(weights, x)
        x.fill(0)
        kept.append(x)
        return np.asfortranarray(np.repeat(products, 2, axis=1))[:, ::2]

    batch = "matmul/i2_s/640x2560/b4/t1/hot"
    rows = only(gate.parity(gate.backend("keeps")(keeps), workloads=[PRODUCT, batch]), "keeps@python")
    assert [row["exact"] for row in rows] == [True, True]
    assert not any(x.any() for x in kept)


def test_an_interruption_inside_a_callable_ends_the_run_and_is_no_failure() -> None:
    def interrupted(_weights: Any, _x: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return None

    result = gate.parity(gate.backend("slow")(interrupted), workloads=[DEQUANTIZE, PRODUCT])
    assert result.recording.incomplete == "interrupted"
    assert only(result, "slow@python") == []
    assert result.verdict.verdict != "pass"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gate.backend("Mine")(right), "name is 'Mine', expected lower-case"),
        (lambda: gate.backend("a@b")(right), "name is 'a@b'"),
        (lambda: gate.backend(3)(right), "name is 3"),  # type: ignore[arg-type]
        (lambda: gate.backend("mine")(3), "3 is no function and no class"),
        (lambda: gate.backend("mine")(dict), "expected the methods prepare"),
        (lambda: gate.crossval(callables=[right]), "is no backend, expected what @backend"),  # type: ignore[list-item]
        (lambda: gate.crossval(callables=gate.backend("mine")(right)), "got the single value"),  # type: ignore[arg-type]
        (lambda: gate.parity(), "no backend was given"),
        (lambda: gate.parity("rust-avx3"), "no backend is called"),
        (lambda: gate.plan(callables=[gate.backend("mine")(right)] * 2), "two are called mine@python"),
    ],
)  # fmt: skip
def test_unusable_callables_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(gate.InputError, match=words):
        call()


@pytest.mark.parametrize("name", gate.backends())
def test_parity_compares_the_named_alone(name: str) -> None:
    result = gate.parity(name, gate.backend("mine")(right), workloads=[PRODUCT])
    compared = {row["backend"] for row in result.recording.agreements}
    assert compared == {name, "mine@python"} - {"rust-scalar"}
    assert all(row["exact"] for row in result.recording.agreements)
    assert result.verdict.verdict == "neutral"


def test_a_plan_names_it() -> None:
    plan = gate.plan(workloads=[PRODUCT], callables=[gate.backend("mine")(right)])
    assert "mine@python" in plan.backends
    assert plan["plan"]["requested"] == ["mine@python"]


def test_equal_code_has_one_hash_in_every_process() -> None:
    code = (
        "from bitnet_perfgate import callables\n"
        "def f(w, x):\n    return x in {'a', 'b', 'c'} or (lambda y: y + 1)(2)\n"
        "print(callables.code_hash(f))"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment(PYTHONHASHSEED=seed),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(hashes) == 1
    assert callables.code_hash(lambda _w, x: x) != callables.code_hash(lambda w, _x: w)


def test_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    found = doctest.testmod(callables)
    assert (found.attempted, found.failed) == (3, 0)
