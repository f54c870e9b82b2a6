#!/usr/bin/env python3
"""Writes the filter table of legacy iptables in the network namespace that it runs in, as the kernel gives it (IPT_SO_GET_INFO, then IPT_SO_GET_ENTRIES), to the
file that is its first argument; of ip6tables with `6` as the second. Needs CAP_NET_ADMIN."""

import ctypes
import socket
import struct
import sys

IS_IPV6 = sys.argv[2:] == ["6"]
LEVEL = socket.IPPROTO_IPV6 if IS_IPV6 else socket.IPPROTO_IP
INFO, ENTRIES = 64, 65


def option(channel, number, octets):
    buffer = ctypes.create_string_buffer(octets, len(octets))
    length = ctypes.c_uint32(len(octets))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(channel.fileno(), LEVEL, number, buffer, ctypes.byref(length)) != 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw


with socket.socket(socket.AF_INET6 if IS_IPV6 else socket.AF_INET, socket.SOCK_DGRAM) as channel:
    name = b"filter".ljust(32, b"\0")
    info = option(channel, INFO, name + bytes(52))
    (size,) = struct.unpack("I", info[80:84])
    entries = option(channel, ENTRIES, name + struct.pack("I", size) + bytes(4) + bytes(size))
    with open(sys.argv[1], "wb") as file:
        file.write(info + entries[40:])
