"""What is measured beside us: the same price features as others would write them.

Each is what one writes after reading the framework's documentation, tuned where the documentation
says how. They run with a Python of their own (`environment.py`), so nothing here but that module
may import ours. `progress.py` and `price_window.py` are all that they share.
"""
