"""Trained networks as graphs of operators, in the formats of ONNX and ``torch.export``."""

from .graph_file import FORMATS, load_graph, unavailable, write_graph
from .network import MIN_SIZES, ImageNetwork, build_network

__all__ = [
    'FORMATS',
    'MIN_SIZES',
    'ImageNetwork',
    'build_network',
    'load_graph',
    'unavailable',
    'write_graph',
]
