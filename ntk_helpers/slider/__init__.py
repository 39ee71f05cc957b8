"""Figures that a reader moves with a slider, without a kernel."""

from .figure import Slider
from .pictures import Pictures
from .plots import Bars, Curves

__all__ = ["Bars", "Curves", "Pictures", "Slider"]
