"""Metrics that are accumulated on the device and exact over a data set of any size."""

from boltax.metrics._accumulate import Metrics
from boltax.metrics._means import Mean
from boltax.metrics._sums import Sum, confusion_matrix

__all__ = ["Mean", "Metrics", "Sum", "confusion_matrix"]
