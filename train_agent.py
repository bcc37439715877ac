#!/usr/bin/env python
"""Trains an agent: see agents/training."""

import sys

from agents.training.command import main

if __name__ == "__main__":
    sys.exit(main())
