"""Programs that try what a sandbox must refuse, and programs that it must let run; and the process that runs them.

As a script: reads a JSON object (`layers`, `programs`) from stdin, runs each program in an interpreter of its own, and
prints {"layers": …, "outputs": {name: output}, "changed": names after which the place was not empty}. It is a script so
that another user, or another Python, can be the evaluation.

An attack prints MARK if it succeeds. PLACE is a folder that everybody may write, PID the evaluation, OTHER another
process of its user, HOME a home with credentials in it, GOLDS a suite.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

MARK = "hunter2"
WON = "print('hun' + 'ter2')"
"""The end of an attack; in two parts, because a traceback shows the line that failed."""
CREDENTIALS = (".kaggle/kaggle.json", ".config/kaggle/kaggle.json", ".cache/huggingface/token", ".netrc", 
               ".ssh/id_ed25519", ".aws/credentials", ".git-credentials", ".config/gcloud/credentials.db")  # fmt: skip


def attack(*lines: str) -> str:
    """Return a program that says so if all of its lines could be run."""
    return "\n".join(("import os, sys", *lines, WON))


NETWORK = {
    "tcp": attack("import socket", "socket.socket().bind(('127.0.0.1', 0))"),
    "udp": attack("import socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"),
    "unix datagram": attack("import socket", "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('PLACE/a')"),
    "abstract name": attack("import socket", "socket.socket(socket.AF_UNIX).bind(chr(0) + 'mathlete')"),
    "pair": attack("import socket", "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].bind('PLACE/b')"),
    "pair of the C module": attack("import _socket", "_socket.socketpair()"),
    "raw": attack("import socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "netlink": attack("import socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).bind((0, 0))"),
    "name": attack("import socket", "socket.gethostbyname('localhost.invalid')"),
    "http": attack("import http.client as h", "h.HTTPConnection('127.0.0.1', 9).connect()"),
    "asyncio": attack("import asyncio", "asyncio.run(asyncio.open_connection('127.0.0.1', 9))"),
}
PROCESSES = {
    "fork": attack("if os.fork() == 0: os._exit(0)"),
    "forkpty": attack("if os.forkpty()[0] == 0: os._exit(0)"),
    "spawn": attack("os.posix_spawn('/bin/true', ['true'], {})"),
    "exec": "import os\nos.execv('/bin/echo', ['echo', 'x'])\n" + WON,
    "system": attack("assert os.system('true') == 0"),
    "popen": attack("os.popen('true').read()"),
    "subprocess": attack("import subprocess", "subprocess.run('true')"),
    "fork_exec": attack(
        "import _posixsubprocess as p",
        "r, w = os.pipe()",
        "p.fork_exec([b'/bin/true'], [b'/bin/true'], True, (), None, None, -1, -1, -1, -1, -1, -1, r, w, False, False,"
        " 0, None, None, None, -1, None, True)",
    ),
    "multiprocessing": attack("import multiprocessing as m", "m.get_context('fork').Process(target=int).start()"),
    "process pool": attack("import concurrent.futures as c", "c.ProcessPoolExecutor(1).submit(int).result()"),
    "kill": attack("os.kill(PID, 0)"),
    "kill of the parent": attack("os.kill(os.getppid(), 0)"),
    "killpg": attack("os.killpg(os.getpgid(PID), 0)"),
    "pidfd": attack("import signal", "signal.pidfd_send_signal(os.pidfd_open(PID), 0)"),
    "owner of a descriptor": attack("import fcntl", "fcntl.fcntl(0, fcntl.F_SETOWN, PID)"),
    "signal of a descriptor": attack("import fcntl", "fcntl.fcntl(0, fcntl.F_SETSIG, 9)"),
    "lease": attack("import fcntl", "fcntl.fcntl(os.open('/etc/hostname', 0), fcntl.F_SETLEASE, 0)"),
    "notes on a folder": attack("import fcntl", "fcntl.fcntl(os.open('.', 0), fcntl.F_NOTIFY, 1)"),
    "flock": attack("import fcntl", "fcntl.flock(os.open('/etc/hostname', 0), fcntl.LOCK_SH)"),
    "lockf": attack("os.lockf(0, os.F_TEST, 0)"),
    "owner by ioctl": attack("import fcntl", "fcntl.ioctl(0, 0x8901, b'1234')"),
    "typing into a terminal": attack("import fcntl", "fcntl.ioctl(0, 0x5412, b'x')"),
    "nice": attack("os.nice(1)"),
    "priority": attack("os.setpriority(os.PRIO_PROCESS, PID, 5)"),
    "affinity": attack("os.sched_setaffinity(PID, os.sched_getaffinity(0))"),
    "scheduler": attack("os.sched_setscheduler(PID, os.SCHED_OTHER, os.sched_param(0))"),
    "another's limits": attack("import resource", "resource.prlimit(PID, resource.RLIMIT_CORE, (0, 0))"),
    "own limits": attack("import resource", "resource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))"),
    "shared memory": attack(
        "from multiprocessing import shared_memory as s", "s.SharedMemory(create=True, size=9).unlink()"
    ),
    "semaphore": attack("import multiprocessing", "multiprocessing.Lock()"),
    "another user": attack("os.setuid(12345)"),
    "chroot": attack("os.chroot('.')"),
}
WRITING = {
    "write": attack("open('PLACE/x', 'w')"),
    "append": attack("open('PLACE/x', 'ab')"),
    "exclusive": attack("open('PLACE/x', 'x')"),
    "own folder": attack("open('x', 'w')"),
    "path": attack("import pathlib", "pathlib.Path('PLACE/x').write_text('x')"),
    "touch": attack("import pathlib", "pathlib.Path('PLACE/x').touch()"),
    "os.open": attack("os.open('PLACE/x', os.O_CREAT)"),
    "read and write": attack("os.open('/etc/hostname', os.O_RDWR)"),
    "truncating os.open": attack("os.open('/etc/hostname', os.O_TRUNC)"),
    "nameless file": attack("os.open('PLACE', os.O_TMPFILE | os.O_WRONLY)"),
    "temporary file": attack("import tempfile", "tempfile.TemporaryFile(dir='PLACE')"),
    "file in memory": attack("os.memfd_create('x')"),
    "mkdir": attack("os.mkdir('PLACE/x')"),
    "makedirs": attack("os.makedirs('PLACE/x/y')"),
    "mkfifo": attack("os.mkfifo('PLACE/x')"),
    "mkfifo of posix": attack("import posix", "posix.mkfifo('PLACE/x')"),
    "mknod": attack("os.mknod('PLACE/x')"),
    "symlink": attack("os.symlink('/', 'PLACE/x')"),
    "hard link": attack("os.link('/etc/hostname', 'PLACE/x')"),
    "rename": attack("os.rename('PLACE', 'PLACE-2')"),
    "rmdir": attack("os.rmdir('PLACE')"),
    "unlink": attack("os.unlink('HOME/.netrc')"),
    "rmtree": attack("import shutil", "shutil.rmtree('PLACE')"),
    "copy": attack("import shutil", "shutil.copy('/etc/hostname', 'PLACE/x')"),
    "chmod": attack("os.chmod('PLACE', 0o777)"),
    "chown": attack("os.chown('PLACE', -1, os.getgid())"),
    "utime": attack("os.utime('PLACE')"),
    "truncate": attack("os.truncate('HOME/.netrc', 0)"),
    "xattr": attack("os.setxattr('PLACE', 'user.x', b'x')"),
    "sqlite": attack("import sqlite3", "sqlite3.connect('PLACE/x').execute('create table t (x)')"),
    "sqlite attached": attack("import sqlite3", "c = sqlite3.connect(':memory:')",
                              "c.execute(\"attach 'PLACE/x' as y\")", "c.execute('create table y.t (x)')"),
    "dbm": attack("import dbm", "dbm.open('PLACE/x', 'c')"),
    "shelve": attack("import shelve", "shelve.open('PLACE/x')"),
    "numpy save": attack("import numpy", "numpy.save('PLACE/x', numpy.ones(1))"),
    "numpy tofile": attack("import numpy", "numpy.ones(1).tofile('PLACE/x')"),
    "numpy memmap": attack("import numpy", "numpy.memmap('PLACE/x', mode='w+', shape=1)"),
    "zip": attack("import zipfile", "zipfile.ZipFile('PLACE/x', 'w').close()"),
    "log": attack("import logging", "logging.FileHandler('PLACE/x')"),
    "attributes by ioctl": attack("import fcntl", "fcntl.ioctl(os.open('.', 0), 0x40086602, b'1234' * 2)"),
}  # fmt: skip
EVALUATION = {
    "environ": "print(open('/proc/PID/environ').read())",
    "environ of its thread": "print(open('/proc/PID/task/PID/environ').read())",
    "memory": attack("open('/proc/PID/mem', 'rb')"),
    "map of memory": attack("assert open('/proc/PID/maps').read()"),
    "descriptors": attack("os.readlink('/proc/PID/fd/0')"),
    "root": attack("os.listdir('/proc/PID/root')"),
    "working directory": attack("os.readlink('/proc/PID/cwd')"),
    "memory of the parent": attack("open(f'/proc/{os.getppid()}/mem', 'rb')"),
    "environ by a dirfd": "import os\nf = os.open('/proc', os.O_PATH)\n"
    "print(os.read(os.open('PID/environ', 0, dir_fd=f), 9**5))",
    "own environment": "import os\nprint(dict(os.environ))",
    "environ of itself": "print(open('/proc/self/environ').read())",
}
OTHERS = {"environ of another": "print(open('/proc/OTHER/environ').read())"}
KEYS = {f"~/{name}": f"print(open('HOME/{name}').read())" for name in CREDENTIALS}
GOLDS = {
    "suite": "print(open('GOLDS').read())",
    "suite by os": "import os\nprint(os.read(os.open('GOLDS', 0), 999))",
    "suite by numpy": "import numpy\nprint(numpy.fromfile('GOLDS', 'S1').tobytes())",
    "shipped suite": attack("assert 'gold' in open('SHIPPED').read()"),
}
RUNS = {
    "sum": ("sum(range(10))", "45\n"),
    "sympy": ("import sympy\nsympy.factorint(2**32 + 1)", "{641: 1, 6700417: 1}\n"),
    "solve": ("from sympy import *\nx = symbols('x')\nsolve(x**2 - 2)", "[-sqrt(2), sqrt(2)]\n"),
    "numpy": ("import numpy as np\nprint(np.linalg.inv(np.eye(2) * 2)[0, 0])", "0.5\n"),
    "mpmath": ("from mpmath import mp\nmp.dps = 30\nprint(mp.pi)", "3.14159265358979323846264338328\n"),
    "late import": ("import sympy.plotting, unittest, csv, decimal\n1", "1\n"),
    "thread": ("import threading\nt = threading.Thread(target=print, args=(1,))\nt.start(); t.join()", "1\n"),
    "thread pool": ("import concurrent.futures as c\nlist(c.ThreadPoolExecutor(2).map(abs, [-1]))", "[1]\n"),
    "sleep": ("import time\ntime.sleep(0.01)\n1", "1\n"),
    "long integer": ("len(str(10**9999))", "10000\n"),
    "random": ("import random, secrets\nsecrets.token_bytes(2) and 1", "1\n"),
    "date": ("import datetime\ndatetime.datetime.now().year > 2000", "True\n"),
    "stringio": ("import io\nio.StringIO('x').read()", "'x'\n"),
}
GROUPS = {
    "network": NETWORK,
    "other processes": PROCESSES,
    "writing": WRITING,
    "environment and memory of the evaluation": EVALUATION,
    "environment of the user's other processes": OTHERS,
    "golds": GOLDS,
    "keys and tokens in files": KEYS,
}
"""{row of the table in docs/solving.md, by its first words: {name: attack}}."""


@dataclass(frozen=True)
class Request:
    """What is run, and behind what."""

    layers: list[str]
    programs: dict[str, str]


def _main(request: Request) -> dict[str, object]:
    from mathlete.tir.protection import ProgramLimits
    from mathlete.tir.python import Pythons

    quiet = subprocess.DEVNULL
    place, other = tempfile.mkdtemp(), subprocess.Popen(["sleep", "600"], stdin=quiet, stdout=quiet, stderr=quiet)
    words = {"PLACE": place, "PID": str(os.getpid()), "OTHER": str(other.pid)}
    limits = ProgramLimits(timeout_s=20, grace_s=0.5, memory_mib=400, output_chars=4000, cpu_s=60)
    outputs: dict[str, str] = {}
    changed: list[str] = []
    try:
        with closing(Pythons(limits, layers=request.layers)) as pythons:
            for name, program in request.programs.items():
                make_empty(place)
                with closing(pythons.open()) as one:
                    outputs[name] = one.run(replace_words(program, words)).output
                changed += [name] * (not Path(place).exists() or any(Path(place).iterdir()))
            return {"layers": pythons.layers, "outputs": outputs, "changed": changed}
    finally:
        other.kill()
        other.wait()
        make_empty(place)
        Path(place).rmdir()


def make_empty(place: str) -> None:
    """Make it the empty folder that everybody may write, whatever it became."""
    subprocess.run(["rm", "-rf", place, f"{place}-2"], check=True)
    Path(place).mkdir()
    Path(place).chmod(0o777)


def replace_words(program: str, words: Mapping[str, str]) -> str:
    """Return the program with names of this run for the words that stand for them."""
    for word, value in words.items():
        program = program.replace(word, value)
    return program


if __name__ == "__main__":
    print(json.dumps(_main(Request(**json.load(sys.stdin)))))
