"""The steps of a build: what each name in a plan does. Every one can be run again after it was cut off."""

import os
from collections.abc import Callable
from pathlib import Path

from bevrepro.core.errors import ChildError
from bevrepro.env import building, patching, selftest, toolkit, wheels
from bevrepro.env.job import Job
from bevrepro.env.layout import CUDA
from bevrepro.env.obtain import Sources


def action(job: Job, name: str) -> Callable[[], None]:
    """What the step of that name does. KeyError for a name that no plan has."""
    plain: dict[str, Callable[[Job], None]] = {
        "venv": wheels.make_venv,
        "wheels": wheels.install_locked,
        "cuda": cuda,
        "build-requirements": building.install_requirements,
        "built": building.install_built,
        "selftest": run_selftest,
    }
    if name in plain:
        return lambda: plain[name](job)
    for each in job.plan.patches:
        if name == f"patch-{each.name}":
            return lambda: patch(job, each.name)
    pins = {f"build-{pin.name}": pin for pin in job.plan.sdists}
    return lambda: building.build(job, pins[name])


def cuda(job: Job) -> None:
    """The toolkit into the environment's folder `cuda`."""
    assert job.plan.target.cuda is not None
    bundle = job.plan.bundle
    sources = Sources(folders=(bundle / "cuda",), offline=True) if bundle else Sources()
    made = toolkit.make_toolkit(job.plan.target.cuda.version, job.plan.build / CUDA, sources, job.on_event)
    job.said["cuda"] = f"from {made.source}"


def patch(job: Job, name: str) -> None:
    """A set of patches to installed packages."""
    (wanted,) = (each for each in job.plan.patches if each.name == name)
    done = patching.apply(wanted, site_packages(job))
    job.said[name] = f"{len(done.patches)} applied"


def run_selftest(job: Job) -> None:
    """Every check of the target. SelfTestFailed where one does not hold."""
    checks = job.plan.target.selftest
    env = {**os.environ, **job.plan.target.environment}
    if job.plan.target.hardware.kind == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""  # its operators are for CPUs; its torch may see a GPU all the same
    results = selftest.run(job.python, checks, env, job.write_log)
    job.said["selftest"] = [each.to_json() for each in results]
    selftest.refuse_failures(results, str(job.log))


def site_packages(job: Job) -> Path:
    """Where packages lie. ChildError where the environment has no such folder."""
    found = sorted(job.plan.build.glob("lib/python3*/site-packages"))
    if len(found) != 1:
        raise ChildError(f"{job.plan.build} has no single site-packages", do="Build it again: --rebuild")
    return found[0]
