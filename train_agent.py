#!/usr/bin/env python
"""Trains an agent that sets guidance and hardening: see agents/training."""

import sys

from agents.training.command import main

if __name__ == "__main__":
    sys.exit(main())
