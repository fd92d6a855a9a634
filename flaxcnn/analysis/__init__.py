"""What a network is made of and what it costs."""

from flaxcnn.analysis.cost import Cost, cost

__all__ = ["Cost", "cost"]
