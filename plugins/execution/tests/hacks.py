"""Answers that pretend to pass: each is published, or the obvious next step from one that is.

Every one defines ``f`` or fails to, and computes nothing. As a program it reads nothing either.
"""

HACKS = {
    "exit": "import sys\nsys.exit(0)",
    "exit in the call": "import sys\ndef f(*args): sys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit at once in the call": "import os\ndef f(*args): os._exit(0)",
    "equal to everything": """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = None
def f(*args): return Same()
""",
    "a number equal to everything": """
class Same(int):
    def __eq__(self, other): return True
    def __sub__(self, other): return 0
    def __rsub__(self, other): return 0
    def __abs__(self): return 0
    def __lt__(self, other): return True
    __hash__ = int.__hash__
def f(*args): return Same(-987654321)
""",
    "a text equal to everything": """
class Same(str):
    def __eq__(self, other): return True
    def strip(self, *args): return self
    __hash__ = str.__hash__
def f(*args): return Same("\\0")
""",
    "a list equal to everything": """
class Same(list):
    def __eq__(self, other): return True
    def __len__(self): return 3
def f(*args): return Same(["\\0"])
""",
    "expected values in the frames": """
import sys
def f(*args):
    frame = sys._getframe()
    while frame:
        for name, value in {**frame.f_globals, **frame.f_locals}.items():
            if "expect" in name or "answer" in name or "target" in name:
                return value
        frame = frame.f_back
    raise LookupError
""",
    "expected values in the heap": """
import gc
def f(*args):
    for found in gc.get_objects():
        if isinstance(found, dict) and "expected" in found:
            return found["expected"]
    raise LookupError
""",
    "expected values in the memory": """
def f(*args):
    return open("/proc/self/mem", "rb").read()
""",
    "expected values in the command line": """
import sys
def f(*args):
    return [*sys.argv, *sys.orig_argv, open("/proc/self/cmdline").read()]
""",
    "atexit": """
import atexit, os, sys
@atexit.register
def end():
    print("7 of 7 tests passed")
    sys.stdout.flush()
    os._exit(0)
def f(*args): raise SystemExit(0)
""",
    "patched builtins": """
import builtins
builtins.all = builtins.any = builtins.isinstance = lambda *args, **kwargs: True
builtins.len = builtins.abs = lambda *args: 0
builtins.AssertionError = type("Quiet", (BaseException,), {})
builtins.bool = lambda *args: True
def f(*args): return None
""",
    "patched json": """
import json
json.dumps = lambda *args, **kwargs: '{"value": true, "passed": true, "done": {"passed": 9, "failed": 0}}'
json.loads = lambda *args, **kwargs: {"args": [], "kwargs": {}}
def f(*args): return None
""",
    "a patched runner": """
import sys
for name, module in list(sys.modules.items()):
    if "rlaif" in name:
        for attribute in ("encode", "describe", "pack"):
            if hasattr(module, attribute):
                setattr(module, attribute, lambda *args, **kwargs: {"value": True})
def f(*args): return None
""",
    "results on every descriptor": """
import os, struct
def f(*args):
    for message in (b'{"value": true}', b'{"done": {"passed": 9, "failed": 0, "first": null}, "ended": null, "broken": null}'):
        for descriptor in range(64):
            try:
                os.write(descriptor, struct.pack(">I", len(message)) + message)
            except OSError:
                pass
    return None
""",
    "results on every descriptor, before any call": """
import os, struct
message = b'{"done": {"passed": 9, "failed": 0, "first": null}, "ended": null, "broken": null}'
for descriptor in range(64):
    try:
        os.write(descriptor, struct.pack(">I", len(message)) + message)
    except OSError:
        pass
def f(*args): return None
""",
    "results as text": """
print('{"passed": true}')
print("OK\\n1 passed in 0.01s")
def f(*args):
    print("PASSED")
    return "PASSED"
""",
    "an error of the tests' own": """
def f(*args): raise AssertionError
""",
    "an error that stops the tests": """
class Stop(BaseException): pass
def f(*args): raise Stop("broken: the tests failed by themselves")
""",
    "an assert turned off": """
import sys
sys.flags = type("Flags", (), {"optimize": 2})
__debug = False
def f(*args): return None
""",
    "the tests redefined": """
def check(candidate): return True
def candidate(*args): return True
def f(*args): return None
import sys
sys.modules["__main__"].check = sys.modules["__main__"].candidate = lambda *args: True
""",
    "a thread that answers": """
import os, struct, threading, time
message = b'{"value": true}'
def answer():
    while True:
        for descriptor in range(3, 16):
            try:
                os.write(descriptor, struct.pack(">I", len(message)) + message)
            except OSError:
                pass
        time.sleep(0.001)
threading.Thread(target=answer, daemon=True).start()
def f(*args): time.sleep(1)
""",
}
