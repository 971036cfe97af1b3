#!/usr/bin/env python3
"""The stranger: recomputes an audit file from the words in audit/src/encoding.rs, sharing no code with Redbutton.
Reads the file from standard input, prints the last head, exits 1 at the first entry that does not fit."""
import hashlib
import json
import struct
import sys

TEXTS = "person role action target reason evidence outcome detail order".split()
previous = bytes(32)
sequence = 0
for line in sys.stdin.buffer:
    entry = json.loads(line)
    data = b"redbutton audit entry\0" + bytes([1])
    data += struct.pack(">Q", entry["sequence"]) + bytes.fromhex(entry["previous"])
    data += struct.pack(">qQQ", entry["at_ms"], entry["incarnation"], entry["epoch"])
    for text in (entry[name].encode() for name in TEXTS):
        data += struct.pack(">I", len(text)) + text
    sequence += 1
    if entry["sequence"] != sequence or bytes.fromhex(entry["previous"]) != previous:
        sys.exit(f"entry {sequence} is not in its place")
    previous = hashlib.sha256(data).digest()
    if bytes.fromhex(entry["hash"]) != previous:
        sys.exit(f"entry {sequence} was edited")
print(f"{sequence}:{previous.hex()}")
