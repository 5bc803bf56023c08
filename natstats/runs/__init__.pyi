from .comparison import Comparison as Comparison
from .comparison import compare as compare
from .control import (
    Control as Control,
)
from .control import (
    RandomWeights as RandomWeights,
)
from .control import (
    compare_with_random as compare_with_random,
)
from .run import Run as Run
from .series import Series as Series
