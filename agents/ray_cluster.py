"""The Ray cluster that trainings and comparisons spread over."""

from __future__ import annotations

import logging

import ray


def connect() -> None:
    """Joins the cluster that runs on this machine, or starts one of this machine alone."""
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", logging_level=logging.ERROR)
    except ConnectionError:
        ray.init(include_dashboard=False, logging_level=logging.ERROR)
