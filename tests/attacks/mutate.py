"""Seeded damage to documents: JSON values that change type, size or place, and bytes that get lost."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

EXTREMES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "[/x]", "<script>", "../../etc", "\x00", "𝔘" * 50, [], {}, [[]], {"a": 1}),
    *(0, 1, -1, 0.5, 1e308, -1e308, 2**31, 2**63, 2**64, 10**30, 10**299, 3000, 10**6, 10**9, "1e999", "nan"),
)
"""What takes the place of a value."""

DEEP, LONG = b"[" * 100_000, b"1" * 5000
RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e400", LONG, DEEP, b'"\\ud800"', b"\xff", b"\x00")
"""What takes the place of some bytes."""


def places(value: Any) -> list[tuple[Any, ...]]:
    """The way to every value inside, the outermost first."""
    found: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    for at, part in found:
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        found += [((*at, key), value) for key, value in inner]
    return [at for at, _ in found]


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A JSON document with one to three things wrong, or some bytes of it."""
    if draw.random() < 0.25:
        return _bytes_mutated(content, draw)
    value = json.loads(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        where = draw.choice(places(value))
        if not where:
            if draw.random() < 0.9:
                continue
            return json.dumps(draw.choice(EXTREMES)).encode()
        holder = value
        for key in where[:-1]:
            holder = holder[key]
        draw.choice(CHANGES)(holder, where[-1], draw)
    return json.dumps(value).encode()


def _remove(holder: Any, key: Any, draw: random.Random) -> None:
    del holder[key]


def _replace(holder: Any, key: Any, draw: random.Random) -> None:
    holder[key] = copy.deepcopy(draw.choice(EXTREMES))


def _nest(holder: Any, key: Any, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 2, 70, 200))):
        holder[key] = draw.choice(([holder[key]], {"a": holder[key]}))


def _scale(holder: Any, key: Any, draw: random.Random) -> None:
    old = holder[key]
    if isinstance(old, bool) or not isinstance(old, int | float):
        holder[key] = str(old)[:1000] if draw.random() < 0.5 else [old, old]
    else:
        holder[key] = draw.choice((old + 1, old - 1, -old, old * 1000, old / 3, str(old)))


def _repeat(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder, list):
        holder.insert(key, holder[key])
    else:
        holder[f"{key}2"] = holder[key]


Change = Callable[[Any, Any, random.Random], None]
CHANGES: tuple[Change, ...] = (_remove, _replace, _replace, _nest, _scale, _repeat)


def _bytes_mutated(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    end = min(len(content), at + draw.choice((0, 1, 8, 200)))
    return draw.choice(
        (
            content[:at],
            content[:at] + draw.choice(RAW) + content[end:],
            content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
            b"\xef\xbb\xbf" + content,
            content[:at] + content[end:],
        )
    )


def tensors_mutated(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file with a header or bytes that are wrong."""
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    if draw.random() < 0.3:
        return _bytes_mutated(content, draw)
    header = mutated(header, draw)
    length = len(header) if draw.random() < 0.9 else draw.choice((0, 2**40, 2**63, len(header) + 1))
    return length.to_bytes(8, "little") + header + rest


def text_mutated(content: bytes, draw: random.Random) -> bytes:
    """A text with bytes that are wrong, or lines of another kind."""
    if draw.random() < 0.5:
        return _bytes_mutated(content, draw)
    odd = (b"a = " + DEEP, b"a = " + LONG, b"a = inf", b"a = nan", b"a.b.c = 1", b"a = [[1], {b = 2}]", b"=")
    more = (b"[t]\nx = 1", b"a = 2020-01-01", b"command = 5", b"command = true")
    lines = content.splitlines()
    lines[draw.randrange(len(lines))] = draw.choice((*odd, *more))
    return b"\n".join(lines)
