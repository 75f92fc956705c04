#!/usr/bin/env python3
"""Writes assignment.json: who gets which arm, worked out without the Rust code, for implementations in any language.

It follows GrowthBook's specification (https://docs.growthbook.io/lib/build-your-own): FNV-1a of 32 bits over UTF-8
bytes, hash versions 1 and 2, bucket ranges, the choice of an arm, and namespaces. Floats are IEEE 754 doubles, added
from the first arm to the last. Run it without arguments; `--check` compares instead of writing.
"""

import json
import pathlib
import sys

OFFSET, PRIME = 2166136261, 16777619
HERE = pathlib.Path(__file__).parent / "assignment.json"


def fnv(text):
    value = OFFSET
    for byte in text.encode("utf-8"):
        value = (value ^ byte) * PRIME % 2**32
    return value


def bucket(seed, unit, version):
    if version == 1:
        return fnv(unit + seed) % 1000 / 1000
    if version == 2:
        return fnv(str(fnv(seed + unit))) % 10000 / 10000
    return None


def ranges(arms, weights, coverage):
    weights = weights or [1 / arms] * arms
    coverage = max(0, min(1, coverage))
    found, at = [], 0
    for weight in weights:
        found.append([at, at + coverage * weight])
        at += weight
    return found


def choose(n, parts):
    return next((at for at, (start, end) in enumerate(parts) if start <= n < end), None)


def in_namespace(unit, name, start, end):
    return start <= bucket("__" + name, unit, 1) < end


UNITS = ["", "a", "b", "user-1", "user-42", "123", " ", "Ann Lee", "größe", "日本語", "👩‍🚀", "é", "e\u0301", "x" * 300, "___)((*\":&"]
SEEDS = ["", "seed", "checkout-2026", "ключ", "()**(%$##$%#$#"]
SPLITS = [
    (1, None, 1), (1, None, 0.3), (1, [1], 1), (2, None, 1), (2, None, 0.5), (2, None, 0), (2, None, 0.01), (3, None, 1),
    (4, None, 0.9), (7, None, 0.37), (10, None, 1), (2, [0.4, 0.6], 1), (3, [0.2, 0.3, 0.5], 0.2), (2, [0.1, 0.9], 0.05),
    (3, [0.333, 0.333, 0.333], 1), (3, [0.334, 0.334, 0.334], 1), (2, [0.995, 0], 1), (2, [0, 1], 1), (3, [0.5, 0, 0.5], 0.7),
    (10, [0.1] * 10, 1), (2, [0.5, 0.5], -0.2), (2, [0.5, 0.5], 1.1),
]
NAMESPACES = [("ranking", 0, 0.4), ("ranking", 0.4, 1), ("ranking", 0.5, 0.5), ("größe", 0, 0.5)]


def vectors():
    hashes = [
        {"seed": seed, "unit": unit, "version": version, "bucket": bucket(seed, unit, version)}
        for seed in SEEDS for unit in UNITS for version in (1, 2)
    ]
    splits = [
        {"arms": arms, "weights": weights, "coverage": coverage, "ranges": ranges(arms, weights, coverage)}
        for arms, weights, coverage in SPLITS
    ]
    points = [0, 0.0001, 0.1, 0.2999, 0.3, 0.3333, 0.4999, 0.5, 0.6667, 0.9, 0.9999]
    choices = [
        {"bucket": n, "ranges": split["ranges"], "arm": choose(n, split["ranges"])} for split in splits for n in points
    ]
    spaces = [
        {"unit": unit, "namespace": [name, start, end], "inside": in_namespace(unit, name, start, end)}
        for name, start, end in NAMESPACES for unit in UNITS
    ]
    return {
        "about": "Made by make.py. weights null: equal ones. arm null: in no range.",
        "fnv1a32": [{"text": text, "hash": fnv(text)} for text in ["", "a", "b", "foobar", "größe", "👩‍🚀"]],
        "buckets": hashes,
        "ranges": splits,
        "choices": choices,
        "namespaces": spaces,
    }


def lines(found):
    """One example a line, so that a change shows what it changes."""
    parts = []
    for name, value in found.items():
        if isinstance(value, list):
            rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in value)
            parts.append(f"  {json.dumps(name)}: [\n{rows}\n  ]")
        else:
            parts.append(f"  {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    text = lines(vectors())
    if "--check" in sys.argv[1:]:
        sys.exit(0 if HERE.read_text(encoding="utf-8") == text else f"{HERE} is not what this script makes")
    HERE.write_text(text, encoding="utf-8")
