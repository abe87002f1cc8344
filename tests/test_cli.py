"""One parser for all commands: help, names of commands and configs, and refusals in a sentence."""

import dataclasses
import importlib
import pathlib
import subprocess
import sys

import pytest

import jaxfair
from jaxfair import config as door
from jaxfair.__main__ import COMMANDS
from jaxfair.__main__ import main as by_name
from jaxfair.benchmark.config import BenchmarkConfig, WorkConfig
from jaxfair.cli import Command, Flag, execute, load_config, parse, shipped_configs
from jaxfair.cli.fields import meanings
from jaxfair.data.config import PARTS, data_classes
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.errors import InputError
from jaxfair.methods.catalog import METHODS
from jaxfair.methods.mitigations.catalog import MITIGATIONS
from jaxfair.phantom.config import PhantomConfig
from jaxfair.report.write import write_report
from tests.small import CONFIG

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG_CLASSES = [
    *door._SECTIONS.values(),
    *(entry.config for entry in (*METHODS.values(), *MITIGATIONS.values())),
    *dict.fromkeys(cls for source in SOURCES for cls in data_classes(source)),
    PhantomConfig,
]
WITH_RUN_CONFIG = ("train", "prepare", "account", "audit")


def module_of(name):
    package = importlib.import_module(f"jaxfair.{name}")
    return importlib.import_module(f"{package.__name__}.__main__") if name in ROOMS else package


ROOMS = ("report", "audit", "benchmark", "export", "predict", "pretrain", "tune")


def page_of(capsys, *argv):
    assert by_name(["jaxfair", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def says(page, term):
    """Whether a row of the page begins with the term and goes on with words."""
    rows = page.split("\n  ")
    found = [row for row in rows if row.startswith(term)]
    return bool(found) and all(row.removeprefix(term).strip(" \n=") for row in found)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does_and_what_each_flag_means(name, capsys):
    page = page_of(capsys, name, "--help")
    command = module_of(name).COMMAND
    assert command.name == name and command.about.strip().splitlines()[0] in page
    for flag in (*command.flags, Flag("help", bool, False, "")):
        start = "--[no]" if flag.kind is bool and flag.name != "help" else "--"
        assert says(page, start + flag.name), flag.name
        assert flag.meaning in " ".join(page.split())


@pytest.mark.parametrize("name", WITH_RUN_CONFIG)
def test_help_shows_every_field_of_every_section_with_its_meaning(name, capsys):
    page = page_of(capsys, name, "--help")
    for cls in CONFIG_CLASSES:
        for name in {field.name for field in dataclasses.fields(cls)} - {*PARTS}:
            assert says(page, f"{name.removeprefix('extractor_')} = "), (cls, name)
    for section in ("method", "extractor", *door._SECTIONS):
        assert f"\nconfig.{section}: " in page
    assert says(page, "name = (required)") and says(page, "seed = (required)")


@pytest.mark.parametrize("cls", [*CONFIG_CLASSES, door.Settings, BenchmarkConfig, WorkConfig])
def test_every_field_of_a_config_has_a_meaning(cls):
    assert set(meanings(cls)) == {field.name for field in dataclasses.fields(cls)}
    assert all(len(text) > 5 for text in meanings(cls).values())


def test_help_may_be_read_in_part():
    command = f"{sys.executable} -m jaxfair.train --help | head -1"
    told = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert told.stdout.startswith("Usage: jaxfair train") and told.stderr == ""
    assert told.returncode == 0


def test_help_of_the_benchmark_shows_its_own_fields(capsys):
    page = page_of(capsys, "benchmark", "--help")
    for field in (*dataclasses.fields(BenchmarkConfig), *dataclasses.fields(WorkConfig)):
        assert says(page, f"{field.name} = "), field.name


def test_help_with_a_config_shows_its_values_and_overrides(capsys):
    page = page_of(capsys, "train", "--config", CONFIG, "--config.dp.epsilon=3", "--help")
    assert "  epsilon = 3.0 " in page and "  name = rsna_fae_phantom " in page
    assert "  hidden_dims = (25, 50, 75, 100)" in page and "config.data.phantom: " in page
    assert "'linear_probe'\n" not in page and "config.data.table: " not in page
    assert "  tuning_runs = 1 " in page and "  ema_decay = 0.99 [left out]" in page


def test_constants_in_a_meaning_are_written_out():
    assert meanings(door.OptimConfig)["name"].startswith("one of adam, nadam, sgd;")


def test_fields_that_share_a_meaning_each_have_it():
    @dataclasses.dataclass
    class Two:
        """Two fields.

        Attributes:
          a, b: what both
            mean.
          c: alone.

        Raises nothing: at all.
        """

    assert meanings(Two) == {"a": "what both mean.", "b": "what both mean.", "c": "alone."}


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_the_page_of_all_commands_lists_each_with_what_it_does(argv, capsys):
    page = page_of(capsys, *argv)
    for name in COMMANDS:
        assert says(page, name)
    assert jaxfair.__version__ in page and says(page, "configs")


def test_the_version_is_said(capsys):
    assert page_of(capsys, "--version") == f"jaxfair {jaxfair.__version__}\n"


def test_an_unknown_command_is_refused_with_the_nearest(capsys):
    assert by_name(["jaxfair", "trian"]) == 2
    err = capsys.readouterr().err
    assert "'trian' is not a command" in err and "Did you mean 'train'?" in err
    assert err.count("\n") == 1


def test_configs_are_listed_with_their_first_lines(capsys):
    page = page_of(capsys, "configs")
    names = [path.stem for path in (ROOT / "configs").glob("*.py")]
    assert sorted(names) == list(shipped_configs())
    assert all(says(page, name) for name in names)


def test_a_command_by_name_reaches_its_main(tmp_path, capsys):
    assert by_name(["jaxfair", "evaluate", f"--workdir={tmp_path}"]) == 2
    assert "is no run folder" in capsys.readouterr().err


def test_every_command_has_a_module_and_a_script():
    assert set(COMMANDS) >= {"train", "prepare", "evaluate", "report", "account"}
    for name in COMMANDS:
        assert callable(module_of(name).main)


@pytest.mark.parametrize("argv", [["--help"], ["report", "--help"], ["configs"], ["trian"]])
def test_what_needs_no_jax_does_not_import_it(argv):
    code = (
        "import sys; from jaxfair.__main__ import main; main(['jaxfair', *sys.argv[1:]]); "
        "sys.exit('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_module_runs_as_a_program():
    line = [sys.executable, "-m", "jaxfair", "--version"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"jaxfair {jaxfair.__version__}\n")


def test_a_shipped_config_is_found_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("rsna_fae:phantom").to_dict() == load_config(CONFIG).to_dict()


def test_a_file_goes_before_a_shipped_config_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rsna_fae").write_text(config_text("config = ConfigDict({'name': 'mine'})"))
    assert load_config("rsna_fae").name == "mine"


def test_a_path_is_never_taken_for_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"configs/rsna_fae\.py does not exist"):
        load_config("configs/rsna_fae.py")


def test_a_name_that_is_nearly_a_shipped_one_is_refused_with_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"does not exist\. Did you mean 'rsna_fae'\? By name"):
        load_config("rsna_fea:phantom")


def config_text(body):
    head = "from ml_collections import ConfigDict\ndef get_config(arg):\n"
    return f"{head}    {body}\n    return config\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(arg:\n    pass\n", "line 1: SyntaxError: '(' was never closed"),
        ("import os\nimport nowhere_at_all\n", "line 2: ModuleNotFoundError: No module named"),
        ("x = 1\n\ny = 1 / 0\n", "line 3: ZeroDivisionError: division by zero"),
        (config_text("config = {}['dp']"), "line 3: KeyError: 'dp'"),
        (config_text("config = int('ten')"), "line 3: invalid literal for int"),
        (config_text("raise ValueError('no\\nsuch')"), "line 3: no such"),
        (config_text("raise SystemExit(3)"), "line 3: SystemExit: 3"),
        (config_text("config = ConfigDict(); config.a.b = 1"), "line 3: AttributeError"),
        (config_text("config = 3"), "get_config returned int; it must return a"),
        ("def get_config(arg):\n    pass\n", "get_config returned NoneType"),
        ("def get_config():\n    pass\n", "TypeError: get_config() takes 0 positional"),
        ("x = 1\n", "has no function get_config(arg)"),
    ],
)
def test_a_config_file_that_fails_ends_in_one_sentence_with_file_and_line(
    text, sentence, tmp_path, capsys
):
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert by_name(["jaxfair", "account", "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(str(file)) and sentence in err


def test_a_fault_in_a_module_that_a_config_imports_names_the_configs_line(tmp_path, monkeypatch):
    (tmp_path / "broken_part.py").write_text("\n\n\n1 / 0\n")
    (tmp_path / "mine.py").write_text("x = 1\nimport broken_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"mine\.py, line 2: ZeroDivisionError"):
        load_config(str(tmp_path / "mine.py"))


TOY = Command(
    "toy",
    "Does nothing.",
    (
        Flag("out", str, None, "where"),
        Flag("n", int, 3, "how many"),
        Flag("rate", float, 0.5, "how fast"),
        Flag("loud", bool, False, "how loud"),
        Flag("parts", list, None, "which"),
    ),
    words="RUN",
)


def test_flags_may_stand_before_between_and_after_words():
    line = parse(TOY, ["toy", "--n=4", "a", "--loud", "b", "--parts", "x,y"])
    assert line.words == ("a", "b") and line.config is None
    assert line.flags == {"out": None, "n": 4, "rate": 0.5, "loud": True, "parts": ["x", "y"]}
    assert line.given == {"n", "loud", "parts"}


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--n=many"], "--n=many must be a whole number.\n"),
        (["--n=1.5"], "--n=1.5 must be a whole number.\n"),
        (["--rate=much"], "--rate=much must be a number.\n"),
        (["--ot=x"], "Unknown command line flag 'ot'"),
        (["--config", CONFIG], "toy takes no --config"),
        (["--config"], "--config needs a value"),
    ],
)
def test_a_wrong_line_is_refused_in_one_sentence_and_does_nothing(argv, sentence, capsys):
    assert execute(TOY, ["toy", *argv], lambda line: pytest.fail("it ran")) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_a_refusal_while_running_is_one_sentence_too(capsys):
    def act(line):
        raise InputError("No\nsuch thing.")

    assert execute(TOY, ["toy"], act) == 2
    assert capsys.readouterr().err == "No such thing.\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        execute(TOY, ["toy"], lambda line: 1 // 0)


@pytest.mark.parametrize(
    ("name", "argv", "sentence"),
    [
        ("prepare", ["--config", CONFIG, "--root=x"], "use --config.data.root"),
        ("account", ["--config", CONFIG, "--verify=x"], "Give --config FILE to price a config"),
        ("account", [], "Give --config FILE to price a config"),
        ("benchmark", ["--config", CONFIG, "--out=x"], "is not a field"),
        ("train", ["--config", "throughput"], "is not a field"),
        ("train", ["--config", CONFIG, "--config.dp=4"], "dp"),
        ("train", ["--config", CONFIG, "--config", CONFIG], "--config"),
    ],
)
def test_lines_that_do_not_fit_a_command_are_refused(name, argv, sentence, capsys):
    assert by_name(["jaxfair", name, *argv]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1


def test_a_run_folder_with_a_broken_config_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{")
    assert by_name(["jaxfair", "evaluate", f"--workdir={tmp_path}"]) == 2
    assert "config.json cannot be read" in capsys.readouterr().err


def test_a_misspelt_flag_is_named_before_a_config_is_asked_for(capsys):
    assert by_name(["jaxfair", "train", "--cofig", "rsna_fae"]) == 2
    assert capsys.readouterr().err == "train has no flag --cofig. Did you mean 'config'?\n"
    assert by_name(["jaxfair", "train", "--nodry-run"]) == 2
    assert "Which experiment?" in capsys.readouterr().err


def test_the_list_of_configs_takes_no_argument(capsys):
    assert by_name(["jaxfair", "configs", "foo"]) == 2
    assert "'foo'" in capsys.readouterr().err


def test_the_page_says_the_name_once(capsys):
    assert page_of(capsys).splitlines()[0].count("jaxfair") == 1


def test_a_folder_in_place_of_a_config_file_is_called_one(tmp_path):
    folder = tmp_path / "mine.py"
    folder.mkdir()
    with pytest.raises(InputError, match="is a folder"):
        load_config(str(folder))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["train", "--config", CONFIG, "--hosts=2"], "go with --coordinator"),
        (["train", "--config", CONFIG, "--coordinator=auto"], "needs a cluster that tells"),
        (["account", "--verify=nowhere"], "nowhere holds no finished run"),
    ],
)
def test_a_line_that_cannot_be_followed_ends_in_one_sentence(line, sentence, capsys):
    module = importlib.import_module(f"jaxfair.{line[0]}")
    assert module.main(line) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


def test_a_report_into_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken is a file"):
        write_report([], tmp_path / "taken", with_images=False)
