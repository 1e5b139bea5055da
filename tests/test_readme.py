"""README's command lines against the real command line."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from bevrepro.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def command_lines():
    """`$ bevrepro ...` in the console blocks, continued lines joined."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    return [line[2:] for line in blocks.splitlines() if line.startswith("$ bevrepro ")]


def mentions():
    """`bevrepro ...` between backticks, where only the command has to exist."""
    return sorted(set(re.findall(r"`bevrepro ([a-z ]+)`", README)))


def find(words):
    """(the command, its name, the words left) at the end of the sub-commands."""
    command, name = get_command(app), "bevrepro"
    while words and hasattr(command, "commands") and not (works_alone(command) and words[0].startswith("-")):
        assert words[0] in command.commands, f"`{name}` has no `{words[0]}`"
        command, name, words = command.commands[words[0]], f"{name} {words[0]}", words[1:]
    assert not hasattr(command, "commands") or works_alone(command), f"`{name}` needs a sub-command"
    return command, name, words


def works_alone(command):
    """A group that does something without a sub-command, as `doctor` does."""
    return command.invoke_without_command and command.name != "bevrepro"


def arguments_taken(command, words):
    """The positional words, after every option was found among the command's own and took its value."""
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    words, positional = list(words), []
    while words:
        if words[0] == "--":
            return positional + words[1:]
        name, equals, _ = words[0].partition("=") if words[0].startswith("--") else (words[0], "", "")
        words.pop(0)
        if not name.startswith("-"):
            positional.append(name)
            continue
        assert name in options, f"there is no option {name}"
        if not (equals or options[name].is_flag):
            assert words, f"{name} needs a value"
            words.pop(0)
    return positional


@pytest.mark.parametrize("line", command_lines())
def test_the_command_line_parses(line):
    command, name, words = find(shlex.split(line)[1:])
    given = arguments_taken(command, words)
    wanted = [param for param in command.params if param.param_type_name == "argument"]
    required = sum(param.required for param in wanted)
    most = float("inf") if any(param.nargs == -1 for param in wanted) else len(wanted)
    assert required <= len(given) <= most, f"`{name}` takes {required} to {most} arguments"


@pytest.mark.parametrize("words", mentions())
def test_the_command_that_is_mentioned_exists(words):
    find(words.split())


def leaves(command, name):
    """The full names of all commands that have no sub-commands or work without one."""
    if not hasattr(command, "commands"):
        return [name]
    found = [leaf for sub in command.commands for leaf in leaves(command.commands[sub], f"{name} {sub}")]
    return [name, *found] if works_alone(command) else found


@pytest.mark.parametrize("name", leaves(get_command(app), "bevrepro"))
def test_every_command_has_an_example(name):
    assert any((line + " ").startswith(name + " ") for line in command_lines())


def test_the_two_commands_open_the_readme():
    assert README.split("\n\n")[2].split("\n") == ["    make demo", "    make test"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_that_are_mentioned_exist(page):
    code = " ".join(re.findall(r"`[^`]*`|^    .*$", (ROOT / page).read_text(), re.MULTILINE))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    mentioned = re.findall(r"\bmake (?:PY=\S+ )?([a-z-]+)", code)
    assert mentioned and set(mentioned) <= set(targets)


def test_the_exit_codes_are_the_real_ones():
    from bevrepro.core import errors

    listed = {int(code) for code in re.findall(r"\| (\d+) \|", README)}
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.UserError)
    ]
    assert {kind.exit_code for kind in kinds} <= listed


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()
