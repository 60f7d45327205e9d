"""Runs commands and measures them. Nothing here knows what is measured."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


class Failed(Exception):
    """A command that did not end well; the text has the command and the end of its standard error."""


@dataclass(frozen=True)
class Done:
    """What a command took. Seconds; `memory_bytes` is the most that it held at once."""

    wall: float
    cpu: float
    memory_bytes: int
    errors: str


@dataclass(frozen=True)
class Place:
    """Where everything is: the data, the scorers, the release binaries, and what is written on the way."""

    data: Path
    score: Path
    binary: Path
    detect_load: Path
    out: Path
    venv: Path

    def show(self, args):
        """A command as a person would type it, with the folders by name."""
        words = []
        for arg in map(str, args):
            for path, name in ((self.binary, "nightshift"), (self.detect_load, "detect_load"), (self.out, "$OUT"),
                               (self.venv, "$VENV"), (self.data, "$DATA"), (self.score, "$SCORE"),
                               (Path(__file__).parent, "bench/quality")):
                arg = arg.replace(str(path), name)
            words.append(arg)
        return " ".join(words)


def run(args, out=None, core=None, env=None):
    """Runs a command with its standard output in the file `out` (`None`: nowhere), on one core when told which.

    Raises `Failed` when it cannot be started or does not exit with 0.
    """
    args = [str(a) for a in args]
    if core is not None:
        args = ["taskset", "-c", str(core), *args]
    began = time.perf_counter()
    with open(out or os.devnull, "wb") as sink, open(os.devnull, "rb") as nothing:
        errors_read, errors_write = os.pipe()
        try:
            process = subprocess.Popen(args, stdin=nothing, stdout=sink, stderr=errors_write,
                                       env={**os.environ, **(env or {})})
        except OSError as e:
            os.close(errors_read)
            raise Failed(f"{args[0]}: {e}") from e
        finally:
            os.close(errors_write)
        with open(errors_read, "rb") as stream:
            errors = stream.read().decode("utf-8", "replace")
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise Failed(f"{' '.join(args)}\nended with {process.returncode}: {errors[-2000:].strip()}")
    return Done(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, errors)


def text_of(args, **how):
    """Standard output of a command, which must exit with 0."""
    try:
        done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False, **how)
    except OSError as e:
        raise Failed(f"{args[0]}: {e}") from e
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, args))}\nended with {done.returncode}: {done.stderr[-2000:].strip()}")
    return done.stdout


def first_core():
    """A core that this process may run on."""
    return min(os.sched_getaffinity(0))
