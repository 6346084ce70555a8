"""plotly.js, out of the Python package plotly."""

from __future__ import annotations

__all__ = ["javascript"]


def javascript() -> str:
    """The source of plotly.js, about 5 MB, made safe to stand in an HTML script element.

    Raises ImportError with what to install where plotly is missing.

    >>> "</script" in javascript()
    False
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ImportError("a report needs the package plotly; install it with pip install 'polyad[report]'") from None
    return get_plotlyjs().replace("</script", "<\\/script")
