"""The commands that documents and the action show are run as they stand there."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY, Cli, environment

DOCUMENTS = ("READ_A_VERDICT.md", "GATE_MY_PULL_REQUEST.md")
PREFIX = ["python", "-m", "bitnet_perfgate"]


def commands(document: str) -> list[list[str]]:
    text = (REPOSITORY / "docs" / document).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_runs(cli: Cli, document: str, tmp_path: Path) -> None:
    shown = commands(document)
    assert len(shown) >= 3
    for words in shown:
        assert words[:3] == PREFIX
        done = cli(*words[3:], GITHUB_ACTIONS="")
        # A verdict about this machine today is what it is; anything else has to work.
        judges = words[3] in ("run", "gate", "compare", "baseline")
        assert done.returncode in ((0, 1, 3) if judges else (0,)), (words, done.stderr)
        assert done.stdout or "--output" in words
        if "--output" in words:
            assert (tmp_path / words[words.index("--output") + 1]).stat().st_size > 0


def test_the_cell_of_the_document_is_one_the_magic_takes() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    text = (REPOSITORY / "docs" / "READ_A_VERDICT.md").read_text()
    (cell,) = re.findall(r"```\n(%%perfgate.*?)```", text, re.DOTALL)
    line, _, body = cell.partition("\n")
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    shell.run_line_magic("load_ext", "bitnet_perfgate")
    shell.user_ns["data"] = list(range(100))
    assert shell.run_cell_magic("perfgate", line.removeprefix("%%perfgate "), body).verdict


def steps() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((REPOSITORY / "action.yml").read_text())["runs"]["steps"]
    return found


def test_the_action_lets_no_input_into_a_script() -> None:
    for step in steps():
        assert "${{" not in step["run"], (
            f"{step['name']}: an expression in a script is code of whoever wrote it"
        )
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "perf-gate.yml").read_text())
    assert workflow["permissions"] == {"contents": "read", "checks": "write", "pull-requests": "write"}
    uses = [step.get("uses") for step in workflow["jobs"]["gate"]["steps"]]
    assert "./" in uses


@pytest.mark.parametrize(
    ("code", "verdict", "expected"),
    [(0, True, 0), (1, True, 1), (3, True, 3), (2, False, 2), (None, False, 2)],
)
def test_the_action_ends_as_the_gate_did(
    tmp_path: Path, code: int | None, verdict: bool, expected: int
) -> None:
    """Its scripts, with a stand-in for Python that notes its arguments."""
    stand_in = tmp_path / "perfgate" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    made = "touch benchmark-results/gate.verdict.json;" if verdict else ""
    stand_in.write_text(
        "#!/usr/bin/env bash\n"
        f'printf "%s\\n" "$*" >> "{tmp_path}/calls"\n'
        f'if [ "$3" = gate ]; then {made} exit {code}; fi\n'
    )
    stand_in.chmod(0o755)
    by_name = {step["name"]: step for step in steps()}
    output = tmp_path / "output"
    inputs = {"REV": "a b; touch hacked", "BASELINE": "b", "PROFILE": "quick", "ITERATIONS": "1"}
    env = environment(
        RUNNER_TEMP=str(tmp_path),
        GITHUB_OUTPUT=str(output),
        **{f"INPUT_{name}": value for name, value in inputs.items()},
        INPUT_THRESHOLDS="",
        INPUT_NEUTRAL_EXIT="3",
    )
    if code is not None:
        run_step(by_name["Gate"], tmp_path, env)
        env["CODE"] = output.read_text().strip().removeprefix("code=")
        report = run_step(by_name["Report"], tmp_path, env)
        calls = (tmp_path / "calls").read_text().splitlines()
        assert "-m bitnet_perfgate gate --rev a b; touch hacked --profile quick" in calls[0]
        if verdict:
            assert [
                words for call in calls[1:] for words in re.findall("--post github|--format [a-z]+", call)
            ] == [
                "--post github",
                "--format markdown",
                "--format junit",
                "--format html",
            ]
        else:
            assert "there is no verdict" in report.stdout
    assert not (tmp_path / "hacked").exists()
    done = run_step(by_name["Conclude"], tmp_path, env, check=False)
    assert done.returncode == expected


def run_step(
    step: dict[str, Any], folder: Path, env: dict[str, str], check: bool = True
) -> subprocess.CompletedProcess[str]:
    script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(script, cwd=folder, env=env, capture_output=True, text=True, check=check)


def test_every_option_of_the_action_exists(cli: Cli) -> None:
    (gate,) = (step["run"] for step in steps() if step["name"] == "Gate")
    (report,) = (step["run"] for step in steps() if step["name"] == "Report")
    for name, script in (("gate", gate), ("report", report)):
        options = set(re.findall(r"[ (](--[a-z-]+)", script))
        known = cli(name, "--help", COLUMNS="200").stdout
        assert options
        assert {option for option in options if option not in known} == set()
