from .environment import place_of as place_of
from .joining import Processes as Processes
from .joining import joined as joined
