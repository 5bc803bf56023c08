"""Why exponents are what they are: predictions of theory, and the account of a network."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
