# Runs a command on a terminal of its own and types at it.
#
#   terminal.py STEPS COMMAND [ARG]…
#
# STEPS is JSON: a list of [text to wait for, what then]; "what then" is text to type, or [rows, columns] to resize to. Each wait
# begins behind the last. Prints all that came from the terminal; the exit code is the command's.
import fcntl, json, os, pty, select, struct, sys, termios

steps = json.loads(sys.argv[1])
size = lambda rows, columns: struct.pack("HHHH", rows, columns, 0, 0)

pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, size(33, 111))
    os.execv(sys.argv[2], sys.argv[2:])

seen, at = b"", 0
while True:
    select.select([terminal], [], [])
    try:
        seen += os.read(terminal, 4096)
    except OSError:  # the other side is closed
        break
    while steps and (found := seen.find(steps[0][0].encode(), at)) >= 0:
        at = found + len(steps[0][0].encode())
        act = steps.pop(0)[1]
        if isinstance(act, str):
            os.write(terminal, act.encode())
        else:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, size(*act))

sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
