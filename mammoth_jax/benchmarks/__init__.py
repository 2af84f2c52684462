"""Measurements that the documentation quotes; each module is a command with the figures' conditions in its output."""
