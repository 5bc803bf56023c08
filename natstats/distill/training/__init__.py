"""Training: data, recipes, the loop, and what a training leaves behind."""

__all__: list[str] = []
