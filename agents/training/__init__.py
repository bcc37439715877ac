"""Training an agent: its configuration, vector environments, callbacks, tuning and evaluation."""
