"""Figures: frozen records in, matplotlib axes out. Nothing is computed here."""

__all__: list[str] = []
