"""The commands that documents and the action show are run as they stand there."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from bitnet_perfgate.cli import app
from conftest import REPOSITORY, Cli, environment
from shown_blocks import FENCE, blocks, documents, run_page, shown_commands

PAGES = documents()
RUN_PAGES = [page for page in PAGES if any(not block.mark for block in blocks(page.read_text(), page.name))]
TASKS = {
    "README.md",
    "BITNET_CPP_MODELS.md",
    "BITNET_RS.md",
    "BRING_YOUR_OWN_KERNEL.md",
    "CHECK_MY_KERNEL.md",
    "GATE_MY_PULL_REQUEST.md",
    "READ_A_VERDICT.md",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    text = page.read_text()
    found = blocks(text, page.name)
    assert [block.place for block in found if not block.accounted_for] == []
    fences = [line for line in text.splitlines() if line.lstrip().startswith(("```", "~~~"))]
    assert len(fences) == 2 * len(found), f"{page.name}: a fence that is not understood"
    indented = re.findall(r"^(?: {4}|\t).*\bpython -m .*$", FENCE.sub("", text), re.MULTILINE)
    assert indented == [], "a command outside a fence is not run"


def test_a_block_that_is_neither_is_found() -> None:
    excused = "<!-- not run: a diagram -->\n```\na -> b\n```\n"
    forgotten = "text\n\n```\npython -m bitnet_perfgate fly\n```\n"
    found = blocks(excused + forgotten + "```bash\nls\n```\n", "page")
    assert [block.place for block in found if not block.accounted_for] == ["page:7"]
    assert [block.detail for block in found] == ["a diagram", "", ""]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```bash\npython -m bitnet_perfgate fly\n```\n", "exit code 2"),
        ("```console\n$ python -m bitnet_perfgate --version\nbitnet_perfgate 0.0.0\n```\n", "shown:"),
        ("```bash\ntrue  # exit code 1\n```\n", "exit code 0"),
        ("```python\nassert False\n```\n", "exit code 1"),
    ],
)
def test_a_block_that_is_wrong_fails(tmp_path: Path, text: str, words: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=words):
        run_page(page, folder, None)


@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.chdir(tmp_path)
    shell: Any = InteractiveShell()  # type: ignore[no-untyped-call]
    assert run_page(page, tmp_path, shell) > 0


def test_every_page_of_a_task_is_run_and_linked() -> None:
    assert {page.name for page in RUN_PAGES} >= TASKS
    readme = (REPOSITORY / "README.md").read_text()
    unlinked = [page.name for page in PAGES if page.name != "README.md" and f"{page.name})" not in readme]
    assert unlinked == []


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            if not path.exists() or (anchor and anchor not in anchors(path)):
                broken.append(target)
    assert broken == []


def test_every_option_that_a_page_shows_exists() -> None:
    root: Any = typer.main.get_command(app)
    for page in PAGES:
        for block in blocks(page.read_text(), page.name):
            for line in shown_commands(block):
                command = root
                words = shlex.split(line, comments=True)[3:]
                while words and hasattr(command, "commands") and not words[0].startswith("-"):
                    assert words[0] in command.commands, f"{block.place}: {line}"
                    command = command.commands[words.pop(0)]
                known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
                options = {word.split("=")[0] for word in words if word.startswith("--")}
                assert options <= known, f"{block.place}: {line}: {sorted(options - known)}"


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
