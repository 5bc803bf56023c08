"""Comparing the runs of several methods: accuracy, paired gains, costs, gaps."""

__all__: list[str] = []
