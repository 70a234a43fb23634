"""Trained networks as graphs of operators, in the formats of ONNX and ``torch.export``."""

from .graph_file import FORMATS, MIN_SIZE, load_graph, unavailable, write_graph
from .network import ImageNetwork, build_network

__all__ = [
    'FORMATS',
    'MIN_SIZE',
    'ImageNetwork',
    'build_network',
    'load_graph',
    'unavailable',
    'write_graph',
]
