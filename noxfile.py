"""The project's commands: `nox -s piebench | translation | ablations | tables | small | speed | gpu | docs | tests |
lint`.

Arguments go after `--`.

All sessions but docs share one environment, .nox/env: every row of a table comes from the same packages, and several
gigabytes of PyTorch are installed once. docs has .nox/docs, without PyTorch. An environment is brought up to date only
when pyproject.toml, constraints.txt or this file change.
"""

import hashlib
import importlib.util
import shutil
import sys
import tomllib
from pathlib import Path

import nox

ROOT = Path(__file__).parent
EXTRAS = "benchmarks,baselines,train,dev"

nox.options.default_venv_backend = "none"  # prepare() makes the shared environment
nox.options.sessions = ["tests", "lint"]


def installer(python: Path) -> list[str]:
    """uv where nox's own Python or the PATH has it, else pip: both give the versions of constraints.txt.

    Both compile what they install, uv only when asked: where Python may write no bytecode, every process would have to
    compile PyTorch again.
    """
    options = ["pip", "install", "--compile-bytecode", "--python", str(python)]
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv", *options]
    if uv := shutil.which("uv"):
        return [uv, *options]
    return [str(python), "-m", "pip", "install"]


def prepare(session: nox.Session, name: str, *packages: str) -> str:
    """The Python of the environment .nox/<name>, which is installed first if it is missing or out of date."""
    environment = ROOT / ".nox" / name
    python = environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt", "noxfile.py"):
        wanted.update((ROOT / name).read_bytes())
    stamp = environment / "installed.sha256"  # written last: an interrupted installation is taken up again
    if not stamp.is_file() or stamp.read_text() != wanted.hexdigest():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(environment), external=True)
        session.run(*installer(python), "-c", "constraints.txt", *packages, external=True)
        stamp.write_text(wanted.hexdigest())
    return str(python)


def run(session: nox.Session, *arguments: str) -> None:
    session.run(prepare(session, "env", "-e", f".[{EXTRAS}]"), *arguments, external=True)


@nox.session
def piebench(session: nox.Session) -> None:
    """Edit, score and tabulate PIE-Bench, the quick rows or `-- --methods all`; what is done is not done again."""
    run(session, "-m", "benchmarks.piebench", *session.posargs)


@nox.session
def translation(session: nox.Session) -> None:
    """Generate from condition maps, score and tabulate: the task that is named after --task, else all three."""
    named = any(argument.partition("=")[0] == "--task" for argument in session.posargs)
    for task in [()] if named else [("--task", name) for name in ("depth", "canny", "segmentation")]:
        run(session, "-m", "benchmarks.translation", *task, *session.posargs)


@nox.session
def ablations(session: nox.Session) -> None:
    """Sweep the guidance, and train and compare small models with and without distillation; or the one --axis named."""
    named = any(argument.partition("=")[0] == "--axis" for argument in session.posargs)
    for axis in [()] if named else [("--axis", name) for name in ("guidance", "distillation")]:
        run(session, "-m", "benchmarks.ablations", *axis, *session.posargs)


@nox.session
def tables(session: nox.Session) -> None:
    """Whether the committed tables are what their summaries give; `-- --write` accepts, `-- --take RUNS` renews."""
    run(session, "-m", "reports.drift", *session.posargs)


@nox.session
def small(session: nox.Session) -> None:
    """A few records of the miniature, whose scores have to be the committed ones within the stated tolerances."""
    run(session, "-m", "benchmarks.small_run", *session.posargs)
    if not session.posargs:
        run(session, "-m", "benchmarks.gallery", "runs/small", "--out", "runs/small/gallery")


@nox.session
def speed(session: nox.Session) -> None:
    """Measure the ratios in docs/speed.md: `nox -s speed -- metrics`."""
    run(session, "-m", "benchmarks.speed", *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """Check and measure a GPU in eight minutes at most; results come in runs/gpu/ one by one."""
    run(session, "-m", "benchmarks.gpu_check", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation with the API of editar in runs/site/; a link that leads nowhere is an error."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    session.run(prepare(session, "docs", *packages), "-m", "mkdocs", "build", *session.posargs, external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The quick tests on all cores; `-- --all` runs the slow ones too, `-- tests/reports -k bootstrap` some."""
    run(session, "-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    run(session, "-m", "ruff", "check", ".")
    run(session, "-m", "ruff", "format", "--check", ".")
    run(session, "-m", "mypy")
