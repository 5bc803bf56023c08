from .differences import Differences as Differences
from .differences import Estimate as Estimate
from .law import Law as Law
from .law import fit_law as fit_law
