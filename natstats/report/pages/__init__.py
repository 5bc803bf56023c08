"""HTML pages that need nothing else: style, script and figures are inside."""

__all__: list[str] = []
