#!/usr/bin/env python3
"""Sends one signed ping of death. Written from docs/protocol-pod.md alone: it shares no code with Redbutton, and needs
nothing but Python's standard library. Reads its orders from stdin, so that no secret stands in the arguments:
{"to": "192.0.2.1", "node": UUID, "boot": UUID or "", "action": "dry-run", "secret": 32 hex, "seed": 64 hex}
"""
import hashlib, ipaddress, json, os, socket, struct, sys, time, uuid

ACTIONS = {"probe": 1, "dry-run": 2, "reboot": 3, "crash": 4, "kill-slivers": 5}
STATUS = {1: "here", 2: "armed", 3: "accepted", 4: "refused"}
REASONS = ["", "other boot", "stale", "replay", "unknown key", "out of scope", "wrong signature", "busy", "unable"]

def rotate(x, by):
    return ((x << by) | (x >> (64 - by))) & (2**64 - 1)

def siphash128(key, message):
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]
    def turn(times):
        for _ in range(times):
            v[0] = (v[0] + v[1]) % 2**64; v[1] = rotate(v[1], 13) ^ v[0]; v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[3]) % 2**64; v[3] = rotate(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) % 2**64; v[3] = rotate(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) % 2**64; v[1] = rotate(v[1], 17) ^ v[2]; v[2] = rotate(v[2], 32)
    padded = message + bytes(7 - len(message) % 8) + bytes([len(message) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word; turn(2); v[0] ^= word
    v[2] ^= 0xEE; turn(4); first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD; turn(4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])

# Ed25519 as in RFC 8032, in extended coordinates. Not in constant time: for a test, and for a bad day.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

def add(a, b):
    s, t = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    c, d = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = t - s, d - c, d + c, t + s
    return (e * f % P, g * h % P, f * g % P, e * h % P)

def times(scalar, point):
    result = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point, scalar = add(point, point), scalar >> 1
    return result

def compress(point):
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")

def base():
    y = 4 * pow(5, -1, P) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = P - x if x & 1 else x
    return (x, y, 1, x * y % P)

BASE = base()

def sign(seed, message):
    digest = hashlib.sha512(seed).digest()
    secret = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
    public = compress(times(secret, BASE))
    number = lambda *parts: int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % ORDER
    r = number(digest[32:], message)
    commitment = compress(times(r, BASE))
    answer = (r + number(commitment, public, message) * secret) % ORDER
    return commitment + answer.to_bytes(32, "little"), public

def request(action, node, boot, secret, seed, issued_ms, nonce):
    probe = action == "probe"
    key_id = bytes(8) if probe else hashlib.sha256(sign(seed, b"")[1]).digest()[:8]
    head = b"rbPQ" + bytes([1, ACTIONS[action], 0, 0]) + key_id + node + (bytes(16) if probe else boot)
    head += struct.pack(">Q", issued_ms) + nonce
    body = head + (bytes(64) if probe else sign(seed, b"redbutton pod v1\0" + head)[0])
    return body + siphash128(secret, body)

def read_answer(payload, secret, nonce):
    if len(payload) != 104 or payload[:5] != b"rbPA\x01" or siphash128(secret, payload[:88]) != payload[88:]:
        return None
    if payload[56:72] != nonce:
        return None
    return {"status": STATUS[payload[6]], "why": REASONS[payload[7]], "boot": str(uuid.UUID(bytes=payload[32:48])),
            "uptime_ms": struct.unpack(">Q", payload[8:16])[0]}

def checksum(message):
    total = sum(struct.unpack(">%dH" % (len(message) // 2), message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def main():
    order = json.load(sys.stdin)
    node, secret, seed = uuid.UUID(order["node"]).bytes, bytes.fromhex(order["secret"]), bytes.fromhex(order["seed"])
    boot = uuid.UUID(order["boot"]).bytes if order.get("boot") else bytes(16)
    nonce = bytes.fromhex(order["nonce"]) if order.get("nonce") else os.urandom(16)
    issued = order.get("issued_ms", int(time.time() * 1000))
    payload = request(order["action"], node, boot, secret, seed, issued, nonce)
    if "to" not in order:
        return print(payload.hex())
    v6 = ipaddress.ip_address(order["to"]).version == 6
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    wire = socket.socket(family, socket.SOCK_RAW, protocol)
    wire.settimeout(1)
    message = bytes([128 if v6 else 8, 0, 0, 0, 0x52, 0x42, 0, 1]) + payload
    if not v6:
        message = message[:2] + struct.pack(">H", checksum(message)) + message[4:]
    echoed, end = False, time.monotonic() + 20
    while time.monotonic() < end:
        wire.sendto(message, (order["to"], 0))
        try:
            while True:
                packet = wire.recv(2048)
                reply = packet if v6 else packet[(packet[0] & 15) * 4:]
                if reply[0] != (129 if v6 else 0) or reply[4:8] != message[4:8]:
                    continue
                answer = read_answer(reply[8:], secret, nonce)
                if answer:
                    return print(json.dumps(answer))
                echoed = echoed or reply[8:] == payload
        except socket.timeout:
            pass
    print(json.dumps({"status": "kernel alive" if echoed else "silent"}))

if __name__ == "__main__":
    main()
