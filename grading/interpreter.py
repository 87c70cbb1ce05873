"""
Run a program that a model wrote, and return what belongs into its output block.

    run_program("print(7 + 5)")    # '12'

Each program runs in a fresh Python process, in an empty folder, with limits of time, memory and output (on a
system without the module `resource` only those of time and output). Before that its source is looked through
(`forbidden`): modules and names that no solution of a problem needs are refused. What this misses, files,
sockets and processes, is stopped inside the process by an audit hook. All this guards against a model's
mistakes. It is no prison for somebody who means harm: for that use a container.

The process runs this same file, which therefore imports the standard library only.
"""
import ast
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback

MODULES = {"math", "cmath", "fractions", "decimal", "itertools", "collections", "functools", "operator", "re",
           "statistics", "random", "datetime", "calendar", "time", "string", "heapq", "bisect", "copy",
           "typing", "dataclasses", "numbers", "sympy", "numpy", "scipy"}
FORBIDDEN = {"open", "exec", "eval", "compile", "input", "globals", "locals", "vars", "breakpoint", "getattr",
             "setattr", "delattr", "exit", "quit", "help", "memoryview"}
MOST_CHARACTERS = 2000          # of the output
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
    for node in nodes:
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "."]
        for module in modules:
            if module.partition(".")[0] not in MODULES:
                return module
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            return node.attr
        if isinstance(node, ast.Name) and node.id in FORBIDDEN:
            return node.id
        if isinstance(node, ast.Name) and node.id.startswith("__") and node.id != "__name__":
            return node.id
    return None


def run_program(program, earlier=(), seconds=5.0, policy=True):
    """What a program prints, as a text without the newline at its end.

    earlier: programs that run before it in the same process; nothing of what they print or raise is shown.
    seconds: of the clock, for all of them. policy=False does not look the source through.

    After what was printed stands the last line of an error, 'Timeout: 5 s' where the time was over, or '...'
    where there was too much. A program that is refused does not run: 'Refused: NAME'.
    """
    name = next(filter(None, map(forbidden, [*earlier, program])), None) if policy else None
    if name:
        return f"Refused: {name}"
    environment = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", **ONE_THREAD}
    environment |= {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
    command = [sys.executable, "-s", "-B", "-u", os.path.abspath(__file__), str(seconds),
               json.dumps([*earlier, program])]
    with tempfile.TemporaryFile() as output:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.DEVNULL, env=environment, cwd=folder,
                                       start_new_session=True)
        # The folder is gone already, where the system allows it: an evaluation that is killed leaves none.
        try:
            process.wait(seconds)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            kill(process)
        output.seek(0)
        text = output.read(4 * MOST_CHARACTERS + 4).decode(errors="replace")
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + "..."
    lines = [text.rstrip("\n")] if text.rstrip("\n") else []
    if late:
        lines.append(f"Timeout: {seconds:g} s")
    return "\n".join(lines)


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
        resource.setrlimit(kind, (most, most))
    signal.alarm(int(seconds) + 2)


def audit(event, arguments):
    """Called by Python before it does what the event says."""
    if event.startswith(STOPPED):
        raise PermissionError(f"{event} is not allowed here")
    if event == "open":
        path, mode, flags = arguments
        reads = isinstance(path, str) and not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not (reads and path.startswith(LIBRARIES)):
            raise PermissionError(f"files are not allowed here: {path!r:.60}")


def run_all(programs):
    """Run the programs one after the other, with the same global names. Only the last one is heard."""
    names = {"__name__": "__main__", "__builtins__": __builtins__}
    heard, sys.stdout = sys.stdout, io.StringIO()
    for program in programs[:-1]:
        try:
            exec(compile(program, "<program>", "exec"), names)
        except BaseException:
            pass
    sys.stdout = heard
    try:
        exec(compile(programs[-1], "<program>", "exec"), names)
    except SystemExit:
        pass
    except BaseException as e:
        print(traceback.format_exception_only(e)[-1].strip())


if __name__ == "__main__":
    LIBRARIES = tuple({os.path.realpath(path) + os.sep for path in sys.path[1:]} | set(sys.path[1:]))
    del sys.path[0]                # this folder
    limit(float(sys.argv[1]))
    todo = json.loads(sys.argv[2])
    sys.argv = [""]
    sys.addaudithook(audit)
    try:
        run_all(todo)
    finally:
        os._exit(0)                # at once: no thread is waited for
