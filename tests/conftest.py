"""The one hook that applies the table of known failures."""

import pytest

from known_failures import KNOWN_FAILURES


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
