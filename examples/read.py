"""Read features with httpx. Usage: read.py AAPL current_price price_sma_5"""

import os
import sys

import httpx

url = os.environ.get("TICKWELL_URL", "http://127.0.0.1:8001")
body = {"features": sys.argv[2:], "entity": {"symbol": sys.argv[1]}}
answer = httpx.post(f"{url}/features/online", json=body).raise_for_status()
for name, feature in answer.json()["features"].items():
    print(name, feature["value"], feature["status"], feature["event_time"])
