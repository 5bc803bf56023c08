from .figures.drawing import draw_overlay as draw_overlay
from .figures.drawing import draw_run as draw_run
from .figures.drawing import draw_series as draw_series
from .pages.run import write_report as write_report
from .pages.series import write_series_report as write_series_report
from .records import (
    ControlReport as ControlReport,
)
from .records import (
    DifferenceReport as DifferenceReport,
)
from .records import (
    RunReport as RunReport,
)
from .records import (
    SeriesReport as SeriesReport,
)
