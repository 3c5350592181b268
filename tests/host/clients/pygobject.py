"""PyGObject: GLib's main loop calls Python, and a list is sorted by it."""

import os
import signal

from gi.repository import GLib, GObject

# Where a callback is refused the loop has nothing to do, and does it for ever.
signal.alarm(3)
seen = []


class Emitter(GObject.Object):
    @GObject.Signal(arg_types=(int,))
    def counted(self, number):
        pass


def idle(number):
    seen.append(number)
    if len(seen) == 100:
        loop.quit()
    return False


loop = GLib.MainLoop()
for n in range(100):
    GLib.idle_add(idle, n)
child = os.fork()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
loop.run()
assert sorted(seen) == list(range(100)), seen

emitter = Emitter()
emitter.connect("counted", lambda _, number: seen.append(-number))
for n in range(10):
    emitter.emit("counted", n)
assert seen[100:] == [-n for n in range(10)], seen
print("right")
