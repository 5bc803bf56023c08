from .hooks import ActivationHooks as ActivationHooks
from .layouts import LAYOUTS as LAYOUTS
from .layouts import Layout as Layout
from .probe import probe_layouts as probe_layouts
from .selection import select_modules as select_modules
from .trace import LayerCall as LayerCall
from .trace import Trace as Trace
from .trace import trace_calls as trace_calls
