"""The front door: settings, the command line, embedded services."""

__version__ = "0.1.0"
