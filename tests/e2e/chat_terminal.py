#!/usr/bin/env python3
"""`bitnet chat` on a terminal: chat_terminal.py BITNET MODEL. Line editing, history, Ctrl-C, Ctrl-D."""
import os
import pty
import select
import signal
import sys
import time

UP, CTRL_C, CTRL_D, CTRL_U, BACKSPACE = b"\x1b[A", b"\x03", b"\x04", b"\x15", b"\x7f"
DEADLINE_S = 120


def start(bitnet, model):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LANG="C.UTF-8", LC_ALL="C.UTF-8")
        os.execv(bitnet, [bitnet, "chat", "-m", model, "--temp", "0", "--ignore-eos"])
    return pid, terminal


class Screen:
    """What the program prints, handed out in order."""

    def __init__(self, terminal):
        self.terminal, self.unread = terminal, b""

    def wait_for(self, *wanted):
        """Reads up to the end of the first of the texts that comes."""
        end = time.monotonic() + DEADLINE_S
        while True:
            found = [self.unread.index(text) + len(text) for text in wanted if text in self.unread]
            if found:
                self.unread = self.unread[min(found):]
                return
            if time.monotonic() > end:
                sys.exit(f"waited for {wanted}, saw {self.unread!r}")
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.unread += os.read(self.terminal, 65536)
                except OSError:
                    sys.exit(f"ended while waiting for {wanted}, saw {self.unread!r}")


def main():
    pid, terminal = start(*sys.argv[1:3])
    screen = Screen(terminal)
    screen.wait_for(b"> ")
    os.write(terminal, b"Hellx" + BACKSPACE + "ö there\n".encode())
    screen.wait_for(b"there\r\n")
    time.sleep(0.5)  # into the answer
    os.write(terminal, CTRL_C)
    # A fast machine may have filled the context by then; either way the program goes on.
    screen.wait_for(b"[stopped", b"context of")
    screen.wait_for(b"> ")
    os.write(terminal, b"half a line")
    screen.wait_for(b"half a line")
    os.write(terminal, CTRL_C)
    screen.wait_for(b"/exit or Ctrl-D")
    os.write(terminal, b"/help\n")
    screen.wait_for(b"/reset")
    os.write(terminal, UP)
    screen.wait_for(b"/help")
    os.write(terminal, UP)
    screen.wait_for("Hellö there".encode())
    os.write(terminal, CTRL_U + CTRL_D)
    end = time.monotonic() + DEADLINE_S
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            sys.exit(0 if status == 0 else f"ended with {status}")
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            sys.exit("Ctrl-D did not end the chat")
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                os.read(terminal, 65536)
            except OSError:
                pass


main()
