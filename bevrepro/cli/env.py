"""`bevrepro env ...`: the sub-command that the files env_*.py add their commands to."""

from types import ModuleType

from typer import Typer

from bevrepro.cli import env_build, env_check, env_cuda, env_docker, env_list, env_lock

env = Typer(
    help="Locked environments: build, check, pack and run them, with their own CUDA compiler.",
    no_args_is_help=True,
)
FAMILIES: tuple[ModuleType, ...] = (
    env_list,
    env_lock,
    env_build,
    env_check,
    env_cuda,
    env_docker,
)  # modules with `register(env)`


def register(app: Typer) -> None:
    """Add `env` with its commands."""
    for family in FAMILIES:
        family.register(env)
    app.add_typer(env, name="env")
