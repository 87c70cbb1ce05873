"""
Run a program that a model wrote, and return what belongs into its output block.

    run_program("print(7 + 5)")    # '12'

Each program runs in a fresh Python process, in an empty folder, with limits of time, memory and output (of
memory only where the system has such a limit). Before that its source is looked through (`forbidden`):
modules and names that no solution of a problem needs are refused. What this misses, files, sockets and
processes, is stopped inside the process by an audit hook. All this guards against a model's mistakes. It is
no prison for somebody who means harm: for that use a container.

The process runs this same file, which therefore imports the standard library only.
"""
import ast
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

MODULES = {"__future__", "abc", "array", "bisect", "calendar", "cmath", "collections", "copy", "dataclasses",
           "datetime", "decimal", "enum", "fractions", "functools", "heapq", "itertools", "math", "mpmath",
           "numbers", "numpy", "operator", "random", "re", "scipy", "statistics", "string", "sympy", "time",
           "typing", "warnings"}
# Names that a program may not use, unless they are variables of its own; and others that modules let slip.
FORBIDDEN = {"open", "exec", "eval", "compile", "input", "globals", "locals", "vars", "breakpoint", "getattr",
             "setattr", "delattr", "help", "memoryview"}
SLIPPED = {"builtins", "os", "subprocess", "sys"}
MOST_CHARACTERS = 400           # of the output: it takes room from the answer
MEMORY = 2**30                  # bytes that a program may have
FILE_SIZE = 2**20               # bytes that it may print
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
# Audit events that end a program: what reaches beyond its own memory. Reading is for imports alone.
STOPPED = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "os.remove",
           "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "pty.",
           "shutil.", "signal.", "socket.", "subprocess.", "ctypes.dlsym", "ctypes.call_function", "winreg.")


def forbidden(program):
    """The first name in a program that it may not use, or None. (What does not parse will not run either.)"""
    try:
        nodes = list(ast.walk(ast.parse(program)))
    except (SyntaxError, ValueError):
        return None
    except (RecursionError, MemoryError):
        return "too many brackets"
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        modules, names = [], []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules, names = [node.module or "."], [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and node.attr != "__init__":
            names = [node.attr]
        elif isinstance(node, ast.Name) and (node.id in FORBIDDEN - own or node.id.startswith("__")):
            if node.id != "__name__":
                return node.id
        for module in modules:
            if module.partition(".")[0] not in MODULES:
                return module
        for name in names:
            if name.startswith("_") or name in SLIPPED:
                return name
    return None


def run_program(program, earlier=(), seconds=5.0, policy=True):
    """What a program prints, as a text without the newline at its end.

    earlier: programs that run before it in the same process; nothing of what they print or raise is shown,
    and those that are refused are left out. seconds: of the clock, for all of them. policy=False does not
    look the sources through.

    After what was printed stands the last line of an error, 'Timeout: 5 s' where the time was over, or '...'
    where there was too much. A program that is refused does not run: 'Refused: NAME'.
    """
    if policy:
        name = forbidden(program)
        if name:
            return f"Refused: {name}"
        earlier = [other for other in earlier if not forbidden(other)]
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **ONE_THREAD}
    environment |= {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
    command = [sys.executable, "-s", "-B", "-u", os.path.abspath(__file__), str(seconds)]
    folder, late = tempfile.mkdtemp(), False
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, stderr=error, cwd=folder,
                                   env=environment, start_new_session=True)
        shutil.rmtree(folder, ignore_errors=True)  # on Unix it can go now: so a killed evaluation leaves none
        try:
            process.communicate(json.dumps([*earlier, program]).encode(), seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            kill(process)
            shutil.rmtree(folder, ignore_errors=True)
        parts = [text_of(printed), f"Timeout: {seconds:g} s" if late else text_of(error)]
    if not late and process.returncode < 0:
        parts.append(f"Killed by signal {-process.returncode}")
    return "\n".join(filter(None, parts))


def text_of(file):
    """What was written into a file, cut, without the newlines at its end."""
    file.seek(0)
    text = file.read(4 * MOST_CHARACTERS + 4).decode(errors="replace").replace("\r\n", "\n")
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + "..."
    return text.rstrip("\n")


def kill(process):
    """End a process and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # another system, or ended already
        process.kill()
    process.wait()


# ----------------------------------------------------------------------------------------- inside the process

def limit(seconds):
    """Set the limits that the system has. The alarm ends the process also where the evaluation was killed."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_CPU, int(seconds) + 2), (resource.RLIMIT_AS, MEMORY),
                       (resource.RLIMIT_FSIZE, FILE_SIZE), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):  # macOS has none of memory; there may be a lower one already
            pass
    signal.alarm(int(seconds) + 2)


def hook(libraries):
    """The function that Python calls before it does what an event says. libraries: folders to read from."""
    def audit(event, arguments, stopped=STOPPED):
        if event.startswith(stopped):
            raise PermissionError(f"{event} is not allowed here")
        if event == "open":
            path, mode, flags = arguments
            writes = not isinstance(path, str) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes or not os.path.realpath(path).startswith(libraries):
                raise PermissionError(f"files are not allowed here: {path!r:.60}")
    return audit


def run_all(programs, error):
    """Run the programs one after the other, with the same global names. Only the last one is heard."""
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    heard = sys.stdout
    sys.stdout = sys.stderr = io.StringIO()
    for number, program in enumerate(programs, 1):
        if number == len(programs):
            sys.stdout = heard
        try:
            exec(compile(program, "<program>", "exec"), names)
        except SystemExit:
            pass
        except BaseException as e:
            if number == len(programs):
                print(traceback.format_exception_only(e)[-1].strip(), file=error)


if __name__ == "__main__":
    del sys.path[0]                # this folder
    todo = json.load(sys.stdin)    # and behind that nothing is left to read
    limit(float(sys.argv.pop()))
    random.seed(0)
    sys.addaudithook(hook(tuple(os.path.realpath(path) + os.sep for path in sys.path)))
    try:
        run_all(todo, sys.stderr)
    finally:
        os._exit(0)                # at once: no thread is waited for
