"""The version of natstats, alone in a file so that packaging can read it without importing."""

__version__ = "0.15.0"
