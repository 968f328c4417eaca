"""Reads Warmcast cache entries (docs/entry-format.md) with nothing but Python 3."""
import re

HEADER = re.compile(rb"1(?:[lftih][0-9a-z]{38}|[xyn][0-9a-z]{46})")  # 40 bytes, or 48 with an expiry

def cache_key(prefix, table, partition, sort=None):  # the values of the primary key are bytes
    if sort is not None:
        partition = partition.replace(b"%", b"%25").replace(b":", b"%3A") + b":" + sort
    return f"{prefix}{table}:".encode() + partition

def read(entry, now_ms):  # what GET answered -> ("item", payload), ("absent", None) or ("miss", None)
    header = HEADER.match(entry or b"")
    if not header or int(header[0][6:32], 36) >= 10**40:
        return "miss", None
    kind = chr(entry[1])
    if kind in "xyn" and int(header[0][40:], 36) <= now_ms:
        kind = "i" if kind == "n" else "t"  # expired: no longer believed, or known absent
    return ("item", entry[header.end():]) if kind in "lfxy" else ("absent" if kind in "tn" else "miss", None)

def varint(data, at):  # -> the number, and where it ends
    rest, end = (0, at + 1) if data[at] < 128 else varint(data, at + 1)
    return data[at] & 127 | rest << 7, end
def fields(data, at=0):  # a protobuf message -> the number and the content of each field
    while at < len(data):
        key, at = varint(data, at)
        content, at = varint(data, at)
        if key & 7 == 2:  # the number is the length of the content; the only other type in use is varint
            content, at = data[at:at + content], at + content
        yield key >> 3, content
    assert at == len(data), "the message is cut off"
def members(decode):  # List, StringSet, NumberSet, BinarySet
    return lambda data: [decode(member) for number, member in fields(data) if number == 1]
def value(data):  # an AttributeValue -> {"S": "text"}; one of a type that is not known -> {}
    return {TYPES[number][0]: TYPES[number][1](content) for number, content in fields(data) if number in TYPES}
def item(data):  # an Item or a Map -> {"name": {"S": "text"}, ...}
    pairs = members(lambda pair: dict(fields(pair)))(data)
    return {pair.get(1, b"").decode(): value(pair.get(2, b"")) for pair in pairs}
TYPES = {1: ("S", bytes.decode), 2: ("N", bytes.decode), 3: ("B", bytes), 4: ("BOOL", bool), 5: ("NULL", bool),
         6: ("L", members(value)), 7: ("M", item), 8: ("SS", members(bytes.decode)), 9: ("NS", members(bytes.decode)),
         10: ("BS", members(bytes))}
