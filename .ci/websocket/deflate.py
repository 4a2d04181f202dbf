#!/usr/bin/env python3
"""What permessage-deflate (RFC 7692) would save and cost on frames like ours: the measurement behind docs/protocol.md.

Usage: .ci/websocket/deflate.py      Standard library only: zlib, as every implementation of the extension uses it.
"""

import json
import platform
import resource
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# A frame's end, which the extension leaves away.
TAIL = b"\x00\x00\xff\xff"
# The best of so many rounds: others use this machine too.
ROUNDS = 9
CONNECTIONS = 500


def call(number, tool, **arguments):
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": number}}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


def answer(number, text):
    meta = {
        "inflightd/request_id": f"req_{number * 0x9E3779B97F4A7C15 % 2**64:016x}_{1795767169382 + number}",
        "inflightd/session_id": f"session_{number * 0xC2B2AE3D27D4EB4F % 2**48:012x}",
        "inflightd/role": "leader",
        "inflightd/duration_ms": 4.402 + number,
    }
    result = {"_meta": meta, "content": [{"type": "text", "text": text}]}
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}, ensure_ascii=False).encode()


def frames():
    """Kinds of frames, some of each, as a connection carries them one after the other."""
    sources = sorted(ROOT.glob("src/**/*.rs"), key=lambda path: path.stat().st_size)[-12:]
    texts = [source.read_text() for source in sources]
    prose = " ".join(page.read_text() for page in sorted(ROOT.glob("docs/*.md")))
    asked = ["What is it for?", "What may go wrong here?", "Which of these calls may block, and for how long?"]
    return {
        "small call": [call(n, "chat", prompt=asked[n % 3] + f" In part {n}.") for n in range(12)],
        "small answer": [answer(n, prose[n * 200 :][:200]) for n in range(12)],
        "answer of some pages": [answer(n, prose[n * 6000 :][:6000]) for n in range(12)],
        "call with a source file": [call(n, "analyze", text=text, question=asked[n % 3]) for n, text in enumerate(texts)],
        "call with ten of them": [call(n, "analyze", text="\n".join(texts[n : n + 10])) for n in range(3)],
    }


def deflater(level):
    return zlib.compressobj(level, zlib.DEFLATED, -15)


def measure(some, level, kept):
    """Bytes left of each frame, and the microseconds to make it and to read it."""
    best_in = best_out = float("inf")
    for _ in range(ROUNDS):
        out, back = deflater(level), zlib.decompressobj(-15)
        made = []
        start = time.perf_counter()
        for frame in some:
            out = out if kept else deflater(level)
            made.append((out.compress(frame) + out.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL))
        between = time.perf_counter()
        for frame, small in zip(some, made):
            back = back if kept else zlib.decompressobj(-15)
            read = back.decompress(small + TAIL)
            assert len(read) == len(frame)
        end = time.perf_counter()
        best_out, best_in = min(best_out, between - start), min(best_in, end - between)
    count = len(some)
    return sum(map(len, made)) / count, best_out / count * 1e6, best_in / count * 1e6


def memory():
    """KiB that a connection holds where both sides keep their window between messages."""
    frame = frames()["answer of some pages"][0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = []
    for _ in range(CONNECTIONS):
        out, back = deflater(6), zlib.decompressobj(-15)
        back.decompress(out.compress(frame) + out.flush(zlib.Z_SYNC_FLUSH))
        held.append((out, back))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / CONNECTIONS


def main():
    print(f"zlib {zlib.ZLIB_RUNTIME_VERSION}, {platform.machine()}, Python {platform.python_version()}")
    print("| frame | bytes | level, window | bytes left | µs to make | µs to read | it pays below |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name, some in frames().items():
        size = sum(map(len, some)) / len(some)
        for level, kept in ((1, False), (6, False), (1, True), (6, True)):
            left, made, read = measure(some, level, kept)
            # A link that is slower than this carries the saved bytes in more time than they cost.
            pays = (size - left) * 8 / (made + read)
            window = "kept" if kept else "new"
            print(f"| {name} | {size:.0f} | {level}, {window} | {left:.0f} | {made:.0f} | {read:.0f} | {pays:.0f} Mbit/s |")
    print(f"{memory():.0f} KiB for each connection whose windows are kept")


main()
