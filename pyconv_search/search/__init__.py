"""Trials, the strategies that propose them, and the runner that schedules them with Ray Tune."""
