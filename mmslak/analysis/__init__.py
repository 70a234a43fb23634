"""Look at networks and at what they predict."""

from .sheet import picture_sheet

__all__ = ['picture_sheet']
