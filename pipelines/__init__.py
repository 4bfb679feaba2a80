"""Ticks in: decode, the rolling kernel, the Faust app with its transport, the two sinks, replay."""
