"""The losses of the distillation methods, a file each."""

__all__: list[str] = []
