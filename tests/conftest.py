"""The one hook that applies the table of known failures, and the small model that many tests share."""

import sys

import pytest

import tiny
from known_failures import KNOWN_FAILURES
from polyad import cli
from polyad._folders import cache_folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    used = set()
    for item in items:
        for key, reason in KNOWN_FAILURES.items():
            if _concerns(item, *key):
                used.add(key)
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    everything = (
        config.args == config.getini("testpaths") and not config.option.keyword and not config.option.markexpr
    )
    stale = sorted(set(KNOWN_FAILURES) - used)
    if everything and stale:
        raise pytest.UsageError(f"tests/known_failures.py names tests that do not exist: {stale}")


def _concerns(item: pytest.Item, name: str, prop: str) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "id", None)
    function = getattr(item, "originalname", item.name)
    return parameters == f"{name}-{prop}" or (parameters == name and function == f"test_{prop}")


@pytest.fixture(scope="session", autouse=True)
def measured_apart(tmp_path_factory):
    """Keep what tests measure of kernels out of the user's cache; models and data are those of the user's."""
    users, apart = cache_folder(), tmp_path_factory.mktemp("cache")
    for name in ("models", "data", "tokens", "baselines", "benchmarks"):
        (users / name).mkdir(parents=True, exist_ok=True)
        (apart / name).symlink_to(users / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYAD_CACHE", str(apart))
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder as transformers writes it: a tiny Llama and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory):
    """A file with several windows of text for calibration and for evaluation."""
    file = tmp_path_factory.mktemp("texts") / "topics.txt"
    file.write_text(tiny.PART.joined(), encoding="utf-8")
    return file


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder for this test alone, and no network."""
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@pytest.fixture
def polyad_command(monkeypatch, capfd, own_cache):
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["polyad", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
        said = capfd.readouterr()
        return code, said.out, said.err

    return run
