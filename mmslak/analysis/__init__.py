"""What networks cost, what they see and how they train; the paper's numbers to compare with."""

from .sheet import picture_sheet

__all__ = ['picture_sheet']
