"""Kernels of one's own: a right one is measured, a wrong one is caught and not timed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import bitnet_perfgate as gate
from conftest import DEQUANTIZE, PRODUCT, REPOSITORY, Cli, assert_refused

EXAMPLE = REPOSITORY / "cpp" / "examples" / "my_kernel.c"
INCLUDE = REPOSITORY / "cpp" / "include"
COMPILER = shutil.which("cc")
SMALL = ("--workload", DEQUANTIZE, "--workload", PRODUCT)

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler is called cc here")


def build(source: Path, library: Path) -> Path:
    flags = ["-O3", "-ffp-contract=off", "-shared", "-fPIC", f"-I{INCLUDE}"]
    subprocess.run([str(COMPILER), *flags, "-o", str(library), str(source), "-lm"], check=True)
    return library


def build_changed(folder: Path, name: str, old: str, new: str) -> Path:
    """The example with one fault planted."""
    text = EXAMPLE.read_text()
    assert text.count(old) == 1, f"the example no longer holds {old!r} once"
    source = folder / f"{name}.c"
    source.write_text(text.replace(old, new))
    return build(source, folder / f"lib{name}.so")


@needs_compiler
def test_the_example_kernel_is_compared_and_timed(cli: Cli, tmp_path: Path) -> None:
    plugin = build(EXAMPLE, tmp_path / "libmy_kernel.so")
    done = cli("run", *SMALL, "--plugin", plugin, "--output", "p.json", COLUMNS="80")
    recording = gate.load_recording(tmp_path / "p.json").recording
    (row,) = [row for row in recording.agreements if row["backend"] == "c-my-kernel@libmy_kernel"]
    assert row["workload"] == PRODUCT
    assert row["exact"]
    assert row["compared"] == 640
    assert any(series["backend"] == "c-my-kernel@libmy_kernel" for series in recording["series"])
    assert "Speed of c-my-kernel@libmy_kernel against " in done.stdout
    assert any(
        row["what"] == f"{DEQUANTIZE} on c-my-kernel@libmy_kernel" and "does not support" in row["reason"]
        for row in recording.skipped
    )
    doctor = gate.doctor([plugin])
    assert "c-my-kernel@libmy_kernel" in [backend["name"] for backend in doctor["backends"]]


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("return dot;\n}", "return -dot;\n}", "every product has the opposite sign"),
        ("dot += ((u >> 6 & 3) - 1) * q[b] + ((u >> 4 & 3) - 1) * q[b + 32];",
         "dot += ((u >> 4 & 3) - 1) * q[b] + ((u >> 6 & 3) - 1) * q[b + 32];", "cause unknown"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_fails_with_its_cause_and_is_not_timed(
    cli: Cli, tmp_path: Path, old: str, new: str, cause: str
) -> None:
    plugin = build_changed(tmp_path, "wrong", old, new)
    done = cli("run", *SMALL, "--plugin", plugin, "--output", "w.json", "--format", "json")
    assert done.returncode == 1
    verdict = json.loads(done.stdout)
    (failure,) = verdict["agreement"]["failures"]
    assert failure["backend"] == "c-my-kernel@libwrong"
    assert failure.get("cause", "cause unknown") == cause
    assert verdict["route"]["next"] == "crossval-specialist"
    recording = gate.load_recording(tmp_path / "w.json").recording
    assert not any(series["backend"] == "c-my-kernel@libwrong" for series in recording["series"])
    # The others were timed all the same.
    assert recording["series"]
    shown = cli("crossval", *SMALL, "--plugin", plugin, COLUMNS="80").stdout
    assert "DIFFERS" in shown
    assert cause in " ".join(shown.split())


@needs_compiler
def test_what_is_no_plugin_is_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not a library")
    assert_refused(
        cli("run", "--plugin", "text.so"), "text.so", "not a loadable shared library", "file too short"
    )
    (tmp_path / "empty.c").write_text("int nothing;\n")
    build(tmp_path / "empty.c", tmp_path / "empty.so")
    assert_refused(cli("run", "--plugin", "empty.so"), "empty.so", "bitnet_backend_v1")
    plugin = build_changed(tmp_path, "old", ".abi_major = BNB_ABI_MAJOR,", ".abi_major = BNB_ABI_MAJOR + 1,")
    assert_refused(cli("run", "--plugin", plugin), "libold.so")
    good = build(EXAMPLE, tmp_path / "libgood.so")
    # The same file twice is one plugin; another file of the same name cannot be told apart from it.
    namesake = tmp_path / "elsewhere" / good.name
    namesake.parent.mkdir()
    namesake.write_bytes(good.read_bytes())
    assert_refused(cli("run", "--plugin", good, "--plugin", namesake), "already loaded")


@needs_compiler
def test_a_kernel_may_print(cli: Cli, tmp_path: Path) -> None:
    old = "bnb_matmul *made = calloc(1, sizeof *made);"
    said = 'extern long write(int, const void *, unsigned long); write(1, "loaded tables\\n", 14);'
    plugin = build_changed(tmp_path, "chatty", old, f"{said} {old}")
    done = cli("run", "--workload", PRODUCT, "--plugin", plugin, "--output", "o.json", "-q")
    assert done.returncode in {0, 1, 3}, done.stderr
    recording = json.loads((tmp_path / "o.json").read_text())
    rows = [row for row in recording["agreements"] if row["backend"] == "c-my-kernel@libchatty"]
    assert rows
    assert all(row["exact"] for row in rows)


@needs_compiler
def test_a_plugin_may_be_named_and_its_name_is_known(cli: Cli, tmp_path: Path) -> None:
    plugin = build(EXAMPLE, tmp_path / "libnamed.so")
    chosen = ("--workload", PRODUCT, "--plugin", plugin)
    named = ("--backend", "c-my-kernel@libnamed", "--backend", "cpp-portable")
    done = cli("crossval", *chosen, *named, "--format", "json", "--output", "o.json")
    assert done.returncode == 3, done.stderr
    recording = json.loads((tmp_path / "o.json").read_text())
    names = [backend["name"] for backend in recording["plan"]["backends"]]
    assert names == ["rust-scalar", "cpp-portable", "c-my-kernel@libnamed"]
    assert_refused(cli("crossval", *chosen, "--backend", "c-other"), "c-other", "c-my-kernel@libnamed")
