"""CPython's ctypes: the C library sorts by a Python function, before, after and beside a fork."""

import ctypes
import os

libc = ctypes.CDLL(None)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_long), ctypes.POINTER(ctypes.c_long))
NUMBERS = [7919 * n % 1009 for n in range(150)]


def descending(a, b):
    return b[0] - a[0]


def ascending(a, b):
    return a[0] - b[0]


def sorts(compare, reverse):
    array = (ctypes.c_long * len(NUMBERS))(*NUMBERS)
    libc.qsort(array, len(array), ctypes.sizeof(ctypes.c_long), compare)
    return list(array) == sorted(NUMBERS, reverse=reverse)


def made(function, count):
    return [COMPARE(function) for _ in range(count)]


kept = made(descending, 300)
assert all(sorts(compare, True) for compare in kept[::50])
child = os.fork()
if child == 0:
    count = len(kept)
    del kept
    kept = made(ascending, count)
    right = all(sorts(compare, False) for compare in kept[::50])
    os._exit(0 if right else 1)
assert os.waitpid(child, 0)[1] == 0, "in the child"
assert all(sorts(compare, True) for compare in kept[::50]), "after the child's changes"
more = made(ascending, 6000)
assert all(sorts(compare, False) for compare in more[::1000])
print("right")
