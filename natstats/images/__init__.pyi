from .arrays import ImageArray as ImageArray
from .datasets import DATASETS as DATASETS
from .files import ImageFiles as ImageFiles
from .files import ImageFolder as ImageFolder
from .files import image_paths as image_paths
from .framing import Framing as Framing
from .framing import reframed as reframed
from .image_sets import (
    Batch as Batch,
)
from .image_sets import (
    ImageSet as ImageSet,
)
from .image_sets import (
    Photographs as Photographs,
)
from .image_sets import (
    Sample as Sample,
)
from .image_sets import (
    batches as batches,
)
from .sources import SOURCES as SOURCES
from .sources import open_images as open_images
from .sources import source_name as source_name
