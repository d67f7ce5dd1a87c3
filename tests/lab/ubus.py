#!/usr/bin/env python3
"""Stands in for `ubus` and for what netifd does about `notify_proto` (proto-ext.c, device.c).

Records every message, then does to the device what netifd does: one that it meets for the first
time is set down, loses its addresses and routes, and is set up again; afterwards addresses and
routes become those of the message, and with `keep` nothing is removed.
"""
import json
import os
import pathlib
import subprocess
import sys
import time

DIR = pathlib.Path(__file__).resolve().parent


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def update(message):
    device, known = message["ifname"], DIR / "known"
    index = pathlib.Path(f"/sys/class/net/{device}/ifindex")
    index = index.read_text() if index.exists() else subprocess.run(
        ["ip", "-o", "link", "show", device], check=True, capture_output=True, text=True
    ).stdout.split(":")[0]
    before = json.loads(known.read_text()) if known.exists() else {}
    if before.get("index") != index:
        before = {"index": index, "addresses": [], "routes": []}
        ip("link", "set", device, "down")
        ip("address", "flush", "dev", device)
        ip("link", "set", device, "up")
    addresses = [
        f"{address['ipaddr']}/{address['mask']}"
        for name in ("ipaddr", "ip6addr") for address in message.get(name, [])
    ]
    routes = [
        [f"{route['target']}/{route['netmask']}"]
        + (["src", route["source"]] if "source" in route else [])
        for name in ("routes", "routes6") for route in message.get(name, [])
    ]
    if not message.get("keep"):
        for old in [r for r in before["routes"] if r not in routes]:
            subprocess.run(["ip", "route", "del", *old, "dev", device, "proto", "static"])
        for old in [a for a in before["addresses"] if a not in addresses]:
            ip("address", "del", old, "dev", device)
    for new in [a for a in addresses if a not in before["addresses"]]:
        ip("address", "add", new, "dev", device)
    for new in routes:
        ip("route", "replace", *new, "dev", device, "proto", "static")
    known.write_text(json.dumps({"index": index, "addresses": addresses, "routes": routes}))


def main():
    trouble = DIR / "trouble"
    words = trouble.read_text() if trouble.exists() else ""
    if words == "hang":
        time.sleep(60)
    if words:
        print(words, file=sys.stderr)
        return 4
    verb, path, method, text = sys.argv[1:]
    message = json.loads(text)
    with open(DIR / "messages", "a", encoding="utf-8") as messages:
        print(path, method, text, file=messages)
    if verb == "call" and method == "notify_proto" and message["action"] == 0:
        update(message)
    return 0


sys.exit(main())
