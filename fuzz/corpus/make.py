#!/usr/bin/env python3
"""Makes the first inputs: conversations as they should be, for the fuzzers to spoil. What they find is kept beside them."""
import pathlib
import struct

here = pathlib.Path(__file__).parent


def keep(target, name, data):
    (here / target / name).write_bytes(data)


def header(command, payload=b"", ident=0, flags=0, error=0):
    return struct.pack("=HHIII", ident, command, 16 + len(payload), flags, error) + payload


def step(kind, data):
    return bytes([kind, len(data)]) + data


version = struct.pack("=HH", 0, 1) + b'{"capabilities":{"max_msg_fds":8,"write_multiple":true}}\0'
requests = {
    "version": header(1, version),
    "dma_map": header(2, struct.pack("=IIQQQ", 32, 3, 0, 0x40000, 0x1000)),
    "dma_unmap": header(3, struct.pack("=IIQQ", 24, 0, 0, 0x20000)),
    "unmap_all": header(3, struct.pack("=IIQQ", 24, 2, 0, 0)),
    "device_info": header(4, struct.pack("=IIII", 16, 0, 0, 0)),
    "region_info": header(5, struct.pack("=IIIIQQ", 4096, 0, 0, 0, 0, 0)),
    "region_io_fds": header(6, struct.pack("=IIII", 4096, 0, 0, 0)),
    "irq_info": header(7, struct.pack("=IIII", 16, 0, 2, 0)),
    "set_irqs": header(8, struct.pack("=IIIII", 20, 0x24, 2, 0, 1)),
    "set_irqs_bool": header(8, struct.pack("=IIIII", 22, 0x22, 2, 0, 2) + b"\1\0"),
    "region_read": header(9, struct.pack("=QII", 0x1C, 0, 4)),
    "region_write": header(10, struct.pack("=QII", 0x14, 0, 4) + struct.pack("=I", 0x460001)),
    "config_write": header(10, struct.pack("=QII", 4, 7, 2) + b"\6\4"),
    "msix_write": header(10, struct.pack("=QII", 16, 4, 4) + b"\0\0\0\0"),
    "reset": header(13),
    "dirty_pages": header(14, bytes(16)),
    "write_multi": header(15, struct.pack("=Q", 1) + struct.pack("=QIIQ", 0x24, 0, 4, 0x00010001)),
    "no_reply": header(10, struct.pack("=QII", 0x1000, 0, 4) + struct.pack("=I", 1), flags=0x10),
    "reply": header(5, struct.pack("=IIIIQQ", 64, 0xD, 0, 32, 0x4000, 0)
                    + struct.pack("=HHIIIQQ", 1, 1, 0, 1, 0, 0x1000, 0x1000), flags=1),
}
for name, data in requests.items():
    keep("requests", name, data)

begin = step(3, b"")
for name, data in requests.items():
    kind = {"dma_map": 1 + 8, "set_irqs": 1 + 16}.get(name, 1)
    keep("server", name, begin + step(kind, data))
keep("server", "raw", step(0, header(1, version)) + step(0, header(13)) + step(0, header(13)[:9]))
# AQA, ASQ at page 1, ACQ at page 2, CC.EN; then Identify, and its doorbell.
registers = [(9, 0x000F000F), (10, 0x1000), (11, 0), (12, 0x2000), (13, 0), (5, 0x460001)]
enable = step(4, b"".join(bytes([dword]) + struct.pack("<I", value) for dword, value in registers))


def command(opcode, nsid, prp, *dwords):
    dwords = list(dwords) + [0] * (6 - len(dwords))
    return struct.pack("<IIIIIIQQ6I", opcode, nsid, 0, 0, 0, 0, prp, 0, *dwords)


def admin(index, *what):
    return step(6, bytes([1, index * 4]) + command(*what)) + step(5, bytes([0, index + 1]))


identify = admin(0, 0x06, 0, 0x8000, 1)
keep("server", "identify", begin + enable + identify)
create = admin(1, 0x05, 0, 0x3000, 0x000F0001, 3) + admin(2, 0x01, 0, 0x4000, 0x000F0001, 0x10001)


def io(index, *what):
    return step(6, bytes([4, index * 4]) + command(*what)) + step(5, bytes([2, index + 1]))


queues = begin + enable + identify + create
for opcode, name in [(0, "flush"), (1, "write"), (2, "read"), (5, "compare"), (8, "write_zeroes"), (9, "dsm"), (12, "verify")]:
    keep("server", "io_" + name, queues + io(0, opcode, 1, 0x9000, 3, 0, 7))
keep("server", "many", queues + b"".join(io(i, 1 + i % 2, 1, 0x9000, i) for i in range(12)) + step(7, bytes(200)))
keep("server", "admin", begin + enable + b"".join(
    admin(i, *what) for i, what in enumerate([
        (0x02, 0xFFFFFFFF, 0x8000, 0x007F0002), (0x0A, 0, 0, 7), (0x09, 0, 0, 0x0B, 0x100), (0x0C, 0, 0),
        (0x7C, 0, 0x6000), (0x08, 0, 0, 0x10000), (0x80, 1, 0, 1), (0x00, 0, 0, 1), (0x04, 0, 0, 1)])))


def reply(command, ident, payload=b"", error=None):
    return header(command, payload, ident, 1 if error is None else 0x21, error or 0)


answers = [
    reply(1, 0, version),
    reply(4, 1, struct.pack("=IIII", 16, 3, 9, 5)),
    requests["reply"][:2].replace(b"\0\0", struct.pack("=H", 2)) + requests["reply"][2:],
    reply(5, 3, struct.pack("=IIIIQQ", 32, 3, 7, 0, 4096, 0)),
    reply(7, 4, struct.pack("=IIII", 16, 9, 2, 65)),
    reply(9, 5, struct.pack("=QII", 0, 0, 8) + bytes(8)),
    reply(10, 6, struct.pack("=QII", 0x14, 0, 4)),
    reply(2, 7),
    reply(3, 8, struct.pack("=IIQQ", 24, 0, 0, 4096)),
    reply(13, 9),
]
keep("client", "in_order", b"".join(answers))
keep("client", "refusals", answers[0] + b"".join(reply(4, i, error=22) for i in range(1, 10)))
keep("client", "asks_back", answers[0] + header(11, struct.pack("=QQ", 0, 4096)) + answers[1])
keep("client", "cut", b"".join(answers)[:300])
keep("client", "not_json", reply(1, 0, b"\0\0\1\0nonsense\0"))
