"""Features out.

    request ──► selection ──► plan ──► rows ──► values ──► answer
    api         features               stores   features   api

The steps between know nothing of HTTP; which key of which store holds a row, only `stores` knows.
"""
