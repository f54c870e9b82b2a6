#!/usr/bin/env python3
"""Writes the tables, chains, rules and elements of sets of the network namespace that it runs in, as the kernel sends them over netlink, to the file that is
its argument. Needs CAP_NET_ADMIN."""

import socket
import struct
import sys

NFT = 10 << 8
GET_TABLE, GET_CHAIN, GET_RULE, GET_SET, GET_ELEMENTS = 1, 4, 7, 10, 13
REQUEST, DUMP = 1, 0x300
DONE, ERROR = 3, 2
SET_TABLE, SET_NAME = 1, 2


def attribute(kind, octets):
    return struct.pack("HH", 4 + len(octets), kind) + octets + bytes(-len(octets) % 4)


def attributes(octets):
    found = {}
    while len(octets) >= 4:
        length, kind = struct.unpack("HH", octets[:4])
        found[kind & 0x3FFF] = octets[4:length]
        octets = octets[(length + 3) & ~3 :]
    return found


def dump(channel, kind, family=0, payload=b""):
    body = struct.pack("BBH", family, 0, 0) + payload
    channel.send(struct.pack("IHHII", 16 + len(body), NFT | kind, REQUEST | DUMP, 1, 0) + body)
    messages = []
    while True:
        octets = channel.recv(1 << 17)
        while octets:
            length, kind = struct.unpack("IH", octets[:6])
            if kind == DONE:
                return messages
            if kind == ERROR:
                raise OSError(-struct.unpack("i", octets[16:20])[0], "refused")
            messages.append(octets[:length])
            octets = octets[(length + 3) & ~3 :]


channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
recorded = [message for kind in (GET_TABLE, GET_CHAIN, GET_RULE) for message in dump(channel, kind)]
for message in dump(channel, GET_SET):
    named = attributes(message[20:])
    if named[SET_NAME].startswith(b"__"):
        where = attribute(1, named[SET_TABLE]) + attribute(2, named[SET_NAME])
        recorded += dump(channel, GET_ELEMENTS, message[16], where)
with open(sys.argv[1], "wb") as file:
    file.write(b"".join(recorded))
