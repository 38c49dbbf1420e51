# manager.py SOCKET COMMAND...: as much of a service manager as a service with Restart=on-failure and a descriptor store sees of one
# (sd_notify(3), sd_listen_fds(3)). Prints a line for each thing it is told; COMMAND is started again when a signal ended it.
import array, os, select, socket, sys

path, command = sys.argv[1], sys.argv[2:]
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.bind(path)
store = {}  # name: descriptors


def say(*words):
    print(*words, flush=True)


def start():
    pid = os.fork()
    if pid:
        say("started", pid)
        return pid
    kept = [(name, fd) for name, l in store.items() for fd in l]
    for i, (_, fd) in enumerate(kept):
        os.dup2(fd, 200 + i)  # out of the way first
    for i in range(len(kept)):
        os.dup2(200 + i, 3 + i, inheritable=True)
    os.closerange(3 + len(kept), 1024)
    env = dict(os.environ, NOTIFY_SOCKET=path, FDSTORE="8")
    if kept:
        env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)), LISTEN_FDNAMES=":".join(n for n, _ in kept))
    os.execvpe(command[0], command, env)


def hear():
    data, control, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(16 * 4))
    fds = array.array("i")
    for level, kind, got in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(got[: len(got) - len(got) % fds.itemsize])
    told = dict(line.split("=", 1) for line in data.decode().splitlines())
    name = told.get("FDNAME", "stored")
    if told.get("FDSTORE") == "1":
        store.setdefault(name, []).extend(fds)
        say("keeps", name, len(fds))
    elif told.get("FDSTOREREMOVE") == "1":
        for fd in store.pop(name, []):
            os.close(fd)
        say("drops", name)
    else:
        say("hears", data.decode().replace("\n", " "))


pid = start()
child = os.pidfd_open(pid)
while True:
    ready, _, _ = select.select([sock, child], [], [])
    if sock in ready:
        hear()
        continue
    os.close(child)
    _, status = os.waitpid(pid, 0)
    if not os.WIFSIGNALED(status):
        say("ended", os.WEXITSTATUS(status), "keeping", sum(len(l) for l in store.values()))
        break
    say("died", os.WTERMSIG(status))
    pid = start()
    child = os.pidfd_open(pid)
os.unlink(path)
