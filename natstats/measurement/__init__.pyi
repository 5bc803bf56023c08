from .image_loop import Progress as Progress
from .one_run import measure as measure
from .one_run import measure_images as measure_images
from .options import MeasureOptions as MeasureOptions
from .parts import merge_parts as merge_parts
from .series import measure_series as measure_series
