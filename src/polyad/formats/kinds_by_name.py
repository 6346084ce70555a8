"""The table of formats by name."""

from __future__ import annotations

from typing import Any

from polyad._card import import_methods


class KindsByName(dict[str, Any]):
    """Every kind of format by name; a name that is not known yet may be of a package that is not imported yet."""

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name):
            import_methods()
        return super().__contains__(name)

    def whole(self) -> dict[str, Any]:
        """Every kind of every package, sorted."""
        import_methods()
        return dict(sorted(self.items()))
