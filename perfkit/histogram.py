"""Histograms whose buckets are those of OpenTelemetry and Prometheus, counted in C."""

from __future__ import annotations

from perfkit._native import Histogram, HistogramTimer

__all__ = ["Histogram", "HistogramTimer"]
