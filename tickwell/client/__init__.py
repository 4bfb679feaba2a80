"""The product as its HTTP clients see it: the Python client, and what the command line asks.

`questions` says what is asked and how an answer is read, `calls` how long and how often, `endpoint`
whom. None of them does I/O: that is in `blocking` (on urllib3) and `asynchronous` (on aiohttp).
"""
