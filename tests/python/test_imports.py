"""Other tools' files, from the command line to a verdict. No assertion is about this machine's speed."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

import bitnet_perfgate as perfgate
from bitnet_perfgate import import_command
from conftest import REPOSITORY, Cli, assert_refused

GOLDEN = REPOSITORY / "tests" / "golden" / "import"
FILES = sorted(
    path
    for path in GOLDEN.iterdir()
    if path.suffix in (".json", ".jsonl") or path.name.startswith("criterion")
)


def hyperfine(folder: Path, name: str, factor: float) -> Path:
    """A file whose times are those of the golden one times a factor, each moved a little."""
    document = json.loads((GOLDEN / "hyperfine.json").read_text())
    for result in document["results"]:
        result["times"] = [0.1 * factor * (1 + i * i % 23 * 4e-4) for i in range(60 + len(name))]
        result["times"][0] += 1e-6
    document["results"][1]["times"].reverse()
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    return path


def test_every_golden_file_becomes_a_recording_that_follows_the_schema(tmp_path: Path, cli: Cli) -> None:
    assert len(FILES) >= 21
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "recording-1.schema.json").read_text())
    check = jsonschema.Draft202012Validator(schema)
    for file in FILES:
        recording = perfgate.import_results(file)
        check.validate(recording.data)
        origin = recording["origin"]
        assert origin["files"] == [file.name]
        assert set(origin["benchmarks"]) <= set(recording.workload_ids)
        assert all(":" in name for name in recording.workload_ids)
    done = cli("import", FILES[0], "--output", "x.recording.json", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "x.recording.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        check.validate({**recording.data, "origin": {"tool": 7, "files": []}})


def test_from_files_to_a_verdict(tmp_path: Path, cli: Cli) -> None:
    for name, factor in (("then", 1.0), ("same", 1.001), ("slower", 1.4)):
        done = cli("import", hyperfine(tmp_path, name, factor))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"hyperfine: 2 benchmarks of {name}.json, ")
        assert f"Saved {name}.recording.json" in done.stdout
    then, same, slower = (f"{name}.recording.json" for name in ("then", "same", "slower"))
    unknown = cli("compare", then, same)
    assert unknown.returncode == 3, unknown.stdout
    assert "--same-machine vouches for it" in " ".join(unknown.stdout.split())
    vouched = cli("compare", then, same, "--same-machine")
    assert vouched.returncode == 0, vouched.stdout
    assert vouched.stdout.splitlines()[-1].startswith("PASS evidence: method: unpaired comparison")
    red = cli("compare", then, slower, "--format", "json")
    assert red.returncode == 1, red.stderr
    verdict = json.loads(red.stdout)
    schema = json.loads((REPOSITORY / "docs" / "schemas" / "verdict-1.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(verdict)
    assert [row["verdict"] for row in verdict["comparisons"]] == ["fail", "fail"]
    twice = cli("compare", then, then, "--same-machine", "--neutral-exit", "0")
    assert twice.returncode == 0
    assert "NEUTRAL" in twice.stdout
    assert "to the last digit" in " ".join(twice.stdout.split())
    for judge in (perfgate.compare, perfgate.compare_imported):
        assert judge(tmp_path / then, tmp_path / slower).verdict.data == verdict


def test_a_tree_of_criterion_is_compared_with_its_own_past(tmp_path: Path, cli: Cli) -> None:
    for saved in ("base", "second"):
        done = cli("import", GOLDEN / "criterion", "--saved", saved, "--output", f"{saved}.json")
        assert done.returncode == 0, done.stderr
    verdict = perfgate.compare_imported(tmp_path / "base.json", tmp_path / "second.json").verdict
    assert all(row["ratio"] for row in verdict["comparisons"])
    one_run = GOLDEN / "criterion-one-run"
    for saved in ("base", "new"):
        assert cli("import", one_run, "--saved", saved, "--output", f"{saved}.json").returncode == 0
    done = cli("compare", "base.json", "new.json", "--same-machine")
    assert done.returncode == 3
    assert "base and new are the same run" in " ".join(done.stdout.split())


def test_names_are_mapped(tmp_path: Path, cli: Cli) -> None:
    then, now = (hyperfine(tmp_path, name, 1.0) for name in ("then", "later"))
    now.write_text(now.read_text().replace("sha256sum gb", "sha256sum other=gb"))
    for path in (then, now):
        assert cli("import", path).returncode == 0
    arguments = ("compare", "then.recording.json", "later.recording.json", "--same-machine")
    assert cli(*arguments).returncode == 3
    paired = cli(*arguments, "--map", "gzip -kc gb.cpp=gzip -kc gb.cpp", "--map", "hyperfine:sha256sum gb=x")
    assert_refused(paired, "--map hyperfine:sha256sum gb=x", 'called "x"')
    assert import_command.names_of(["a=b", "x=1=x=2"]) == {"a": "b", "x=1": "x=2"}
    assert_refused(cli(*arguments, "--map", "a"), "--map 'a': expected THEN=NOW")
    mapped = perfgate.compare_imported(
        tmp_path / "then.recording.json",
        tmp_path / "later.recording.json",
        names={"sha256sum gb": "sha256sum other=gb"},
        same_machine=True,
    )
    assert [row["verdict"] for row in mapped.verdict["comparisons"]] == ["pass", "pass"]


def test_unusable_input_is_one_line(tmp_path: Path, cli: Cli) -> None:
    file = GOLDEN / "hyperfine.json"
    assert_refused(cli("import", "nowhere.json"), "nowhere.json: cannot open it")
    assert_refused(cli("import", GOLDEN / "README.md"), "README.md: is no JSON")
    assert_refused(cli("import", file, "--from", "critcmp"), "hyperfine.json: at .: has no field")
    assert_refused(cli("import", file, "--from", "ab"), "known: criterion, cargo-criterion, critcmp")
    assert_refused(cli("import", GOLDEN / "criterion", "--saved", "x"), "expected one of: base, new, second")
    shutil.copy(file, tmp_path / "mine.json")
    assert_refused(cli("import", "mine.json", "--output", "mine.json"), "it is the input")
    assert cli("import", file).returncode == 0
    assert_refused(cli("import", "hyperfine.recording.json", "--output", "y.json"), "of this tool already")
    assert_refused(cli("compare", *["hyperfine.recording.json"] * 3), "3 recordings given, some imported")
    native = REPOSITORY / "tests" / "golden" / "records" / "recording-v1.json"
    assert_refused(cli("compare", native, "hyperfine.recording.json"), "measured by this tool")
    assert_refused(cli("compare", native, native, "--same-machine"), "expected imported recordings")
    refused = cli("baseline", "accept", "hyperfine.recording.json", "--why", "x", "--baseline", "b")
    assert refused.returncode == 2
    assert not (tmp_path / "b").exists()


def test_an_imported_recording_alone_is_never_a_pass(tmp_path: Path) -> None:
    path = tmp_path / "x.recording.json"
    perfgate.import_results(GOLDEN / "hyperfine.json").save(path)
    assert perfgate.load_recording(path).verdict.verdict == "neutral"
