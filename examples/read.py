"""Read features with the Python client. Usage: read.py AAPL current_price price_sma_5"""

import sys

from tickwell import Client

symbol, *features = sys.argv[1:]
with Client() as store:  # the server that TICKWELL_URL names
    answer = store.get_online_features(features, "symbol", symbol)
for name, value in answer.items():
    print(name, value.value, value.status, value.event_time, sep="\t")
