"""Training a student network from a teacher, with the spectra that are measured elsewhere."""

__all__: list[str] = []
