"""What `make dist` makes: the wheel holds all that a user needs, and works without the checkout."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import jaxfair
from tests.small import OVERRIDES

ROOT = pathlib.Path(__file__).resolve().parents[1]
PARTS = ("jaxfair", "configs", "pyproject.toml", "setup.py", "requirements.txt", "README.md")
LINE = ("--config", "rsna_fae:phantom")
SMALL = [f"--config.{name}={value}" for name, value in OVERRIDES.items()]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with an sdist, and a wheel made from it; offline."""
    pytest.importorskip("build")
    home = tmp_path_factory.mktemp("dist")
    source = home / "source"
    source.mkdir()
    for name in (*PARTS, "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    line = [sys.executable, "-m", "build", "--no-isolation", "--outdir", home / "out", source]
    done = subprocess.run(line, capture_output=True, text=True, env=plain_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "out"


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def unzipped(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def plain_environment(**more):
    """This process's environment without the checkout on its path."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


KINDS = ("*.py", "*.pyi", "py.typed", "page.html", "page.css")


def shipped(folder, *kinds):
    found = (path for kind in kinds for path in (ROOT / folder).rglob(kind))
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_module_stub_and_config_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = shipped("jaxfair", *KINDS, "README.md")
    configs = {f"jaxfair/{name}" for name in shipped("configs", "*.py")}
    assert names == package | configs
    assert "jaxfair/py.typed" in names and "jaxfair/configs/rsna_fae.py" in names


def test_version_licence_description_and_script_are_stated(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"jaxfair-{jaxfair.__version__}.dist-info"
    said = archive.read(f"{info}/METADATA").decode()
    assert f"\nVersion: {jaxfair.__version__}\n" in said
    assert "\nLicense-Expression: Apache-2.0\n" in said and "\nRequires-Dist: jax<" in said
    assert said.endswith((ROOT / "README.md").read_text())
    assert f"{info}/licenses/LICENSE" in archive.namelist()
    script = archive.read(f"{info}/entry_points.txt").decode()
    assert "jaxfair = jaxfair.__main__:main" in script


def test_the_source_distribution_holds_what_the_wheel_is_made_from(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in PARTS if "." in name} <= names
    assert shipped("jaxfair", *KINDS) | shipped("configs", "*.py") <= names


def by_wheel(unzipped, cwd, *argv):
    """Runs `jaxfair ...` from the unzipped wheel, in `cwd`, with the dependencies of here."""
    line = [sys.executable, "-m", "jaxfair", *argv]
    env = plain_environment(PYTHONPATH=str(unzipped))
    return subprocess.run(line, capture_output=True, text=True, env=env, cwd=cwd)


def test_the_wheel_plans_a_shipped_config_in_an_empty_folder(unzipped, tmp_path):
    done = by_wheel(unzipped, tmp_path, "train", *LINE, "--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "epsilon" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_wheel_lists_its_own_configs(unzipped, tmp_path):
    done = by_wheel(unzipped, tmp_path, "configs")
    assert done.returncode == 0 and str(unzipped / "jaxfair" / "configs") in done.stdout
    assert all(path.stem in done.stdout for path in (ROOT / "configs").glob("*.py"))


def test_the_wheel_names_a_shipped_config_near_a_wrong_name(unzipped, tmp_path):
    done = by_wheel(unzipped, tmp_path, "train", "--config", "rsna_fea:phantom")
    assert done.returncode == 2 and "Did you mean 'rsna_fae'?" in done.stderr


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The programs of a fresh environment that holds the wheel and its dependencies from PyPI."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(install, check=True, env=plain_environment())
    return folder / "bin"


def in_empty_folder(program, *argv, cwd):
    line, env = [program, *argv], plain_environment()
    return subprocess.run(line, capture_output=True, text=True, env=env, cwd=cwd)


@pytest.mark.slow
def test_the_wheel_installed_in_an_empty_environment_trains_the_phantom(installed, tmp_path):
    short = [*SMALL, "--config.train.steps=2", "--workdir=run"]
    done = in_empty_folder(installed / "jaxfair", "train", *LINE, *short, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Report: run/report.md" in done.stdout and (tmp_path / "run/privacy.json").is_file()
    done = in_empty_folder(installed / "jaxfair", "account", "--verify=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_example_of_the_readme_runs_in_an_empty_environment(installed, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    examples = [block for block in blocks if "fit_private" in block]
    if not examples:
        pytest.skip("the README has no example of fit_private")
    for example in examples:
        done = in_empty_folder(installed / "python", "-c", example, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
