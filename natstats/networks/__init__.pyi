from .checkpoints import read_checkpoint as read_checkpoint
from .load import Network as Network
from .load import load_network as load_network
from .load import network_names as network_names
from .preprocessing import Preprocessing as Preprocessing
from .zoo import (
    NETWORKS as NETWORKS,
)
from .zoo import (
    BasicBlock as BasicBlock,
)
from .zoo import (
    CifarResNet as CifarResNet,
)
from .zoo import (
    MobileNetV1 as MobileNetV1,
)
from .zoo import (
    NamedNetwork as NamedNetwork,
)
from .zoo import (
    PadShortcut as PadShortcut,
)
from .zoo import (
    PyramidBasicBlock as PyramidBasicBlock,
)
from .zoo import (
    PyramidBottleneck as PyramidBottleneck,
)
from .zoo import (
    PyramidNet as PyramidNet,
)
from .zoo import (
    SeparableBlock as SeparableBlock,
)
from .zoo import (
    WideBlock as WideBlock,
)
from .zoo import (
    WideResNet as WideResNet,
)
from .zoo import (
    cifar_resnet as cifar_resnet,
)
from .zoo import (
    cifar_resnet20 as cifar_resnet20,
)
from .zoo import (
    cifar_resnet_x4 as cifar_resnet_x4,
)
from .zoo import (
    mobilenet_v1 as mobilenet_v1,
)
from .zoo import (
    named_network as named_network,
)
from .zoo import (
    pyramidnet as pyramidnet,
)
from .zoo import (
    pyramidnet_110_84 as pyramidnet_110_84,
)
from .zoo import (
    pyramidnet_200_240 as pyramidnet_200_240,
)
from .zoo import (
    wide_resnet as wide_resnet,
)
from .zoo import (
    with_our_keys as with_our_keys,
)
