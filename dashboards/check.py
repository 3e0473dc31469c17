#!/usr/bin/env python3
"""Reads the dashboards into Grafana's own types and writes them again: a field that Grafana does not know gets lost, or is refused.

Needs the package grafana-foundation-sdk; `./x check` has it.
"""

import json
import pathlib
import sys

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(ours, theirs, path):
    """Where `theirs` lacks something of `ours`, or has it changed."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from lost(value, theirs[key], f"{path}.{key}") if key in theirs else [f"{path}.{key}"]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs)):
            yield from lost(one, other, f"{path}[{at}]")
    elif ours != theirs:
        yield path


def main():
    plugins.register_default_plugins()
    files = sorted(pathlib.Path(__file__).parent.glob("*.json"))
    found = [] if files else ["there is no dashboard"]
    for file in files:
        ours = json.loads(file.read_text(encoding="utf-8"))
        theirs = json.loads(JSONEncoder().encode(Dashboard.from_json(ours)))
        found += lost(ours, theirs, file.name)
    for one in found:
        print(f"Grafana's types do not have this: {one}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
