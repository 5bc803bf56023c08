"""Figures, tables and pages of distillation runs and of comparisons of methods."""

__all__: list[str] = []
