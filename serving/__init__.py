"""Features out.

    request ─► names ─► keys ─► read ─► answer ─► bytes
    requests   names    plan    reads    answers   app

The steps between request and bytes know nothing of HTTP.
"""
