#!/usr/bin/env python3
"""The licences of the libraries that are in the two programs, with their texts: what most of them ask to be passed on.

Reads the output of `cargo metadata`, writes text to standard output. Libraries that say the same are listed together."""

import json
import pathlib
import sys

PROGRAMS = ("warmcast-aggregator", "warmcast-cache-writer")
NAMES = ("licen", "copying", "notice", "unlicense", "copyright")
RULE = "=" * 100


def linked(metadata):
    """Every package of others that is linked into the programs."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    waiting = [each["id"] for each in metadata["packages"] if each["name"] in PROGRAMS]
    seen = set(waiting)
    while waiting:
        for dependency in nodes[waiting.pop()]["deps"]:
            # A kind of null is a normal dependency; "build" and "dev" are not in the program.
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            if is_linked and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                waiting.append(dependency["pkg"])
    return [packages[each] for each in seen if packages[each]["source"]]


def texts(package):
    """The licence files that a package brings along: its own, and those of the C library that it has in a folder."""
    folder = pathlib.Path(package["manifest_path"]).parent
    found = [*folder.glob("*"), *(folder.glob("*/*") if package["name"].endswith("-sys") else [])]
    files = [file for file in sorted(found) if file.is_file() and file.name.lower().startswith(NAMES)]
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def main():
    packages = sorted(linked(json.load(sys.stdin)), key=lambda each: (each["name"], each["version"]))
    users = {}
    for package in packages:
        name = f"{package['name']} {package['version']}"
        terms = package["license"] or "see its files"
        print(f"{name}: {terms}. {package['repository'] or ''}")
        for text in texts(package):
            users.setdefault(text, []).append(name)
    for text, names in sorted(users.items(), key=lambda each: each[1]):
        print(f"\n{RULE}\n{', '.join(names)}\n{RULE}\n\n{text}")


if __name__ == "__main__":
    main()
