"""Thousands of files under one epoll instance: what is reported is what is ready, whatever comes, goes and is armed again."""
import os, random, resource, select, socket

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
COUNT = min(1500, (hard - 64) // 2)
random.seed(7)

def level():
    e = select.epoll()
    pairs = [socket.socketpair() for _ in range(COUNT)]
    at = {a.fileno(): (a, b) for a, b in pairs}
    for fd in at:
        e.register(fd, select.EPOLLIN)
    waiting = {}
    every = list(at)
    for step in range(1000):
        if not waiting or random.random() < 0.45:
            fd = random.choice(every)
            at[fd][1].send(b"x")
            waiting[fd] = waiting.get(fd, 0) + 1
        else:
            fd = random.choice(list(waiting))
            at[fd][0].recv(1)
            waiting[fd] -= 1
            if not waiting[fd]:
                del waiting[fd]
        got = {fd for fd, events in e.poll(0, 5000)}
        assert got == set(waiting), (step, len(got), len(waiting))
    # One at a time, all get their turn.
    for a, b in pairs[:40]:
        b.send(b"y")
    turns = set()
    for _ in range(COUNT):
        turns.add(e.poll(0, 1)[0][0])
    assert turns >= {a.fileno() for a, b in pairs[:40]}
    # Files that go without a word are no longer reported.
    for a, b in pairs:
        a.close(), b.close()
    assert e.poll(0) == []
    e.close()

def edges():
    e = select.epoll()
    pairs = [socket.socketpair() for _ in range(300)]
    for a, b in pairs:
        e.register(a, select.EPOLLIN | select.EPOLLET)
    assert e.poll(0) == []
    for _ in range(3):
        some = random.sample(pairs, 50)
        for a, b in some:
            b.send(b"x")
        assert sorted(fd for fd, _ in e.poll(0, 500)) == sorted(a.fileno() for a, b in some)
        assert e.poll(0) == []
    # Once, until it is armed again.
    for a, b in pairs:
        e.modify(a, select.EPOLLIN | select.EPOLLONESHOT)
        a.setblocking(False)
        try:
            while a.recv(100):
                pass
        except BlockingIOError:
            pass
    assert e.poll(0) == []
    a, b = pairs[5]
    b.send(b"1")
    assert len(e.poll(0)) == 1 and e.poll(0) == []
    b.send(b"2")
    assert e.poll(0) == []
    e.modify(a, select.EPOLLIN | select.EPOLLONESHOT)
    assert len(e.poll(0)) == 1 and e.poll(0) == []
    e.unregister(a)
    e.register(a, select.EPOLLIN)
    assert len(e.poll(0)) == 1 and len(e.poll(0)) == 1
    # An instance in another, and one that only poll looks at.
    outer = select.epoll()
    outer.register(e, select.EPOLLIN)
    assert len(outer.poll(0)) == 1
    a.recv(100)
    assert outer.poll(0) == []
    p = select.poll()
    p.register(e, select.POLLIN)
    assert p.poll(0) == []
    b.send(b"3")
    assert len(p.poll(1000)) == 1 and len(outer.poll(0)) == 1
    # What another process does wakes a sleeper.
    a.recv(100)
    child = os.fork()
    if child == 0:
        pairs[77][1].send(b"z")
        os._exit(0)
    e.modify(pairs[77][0], select.EPOLLIN)
    assert [fd for fd, _ in e.poll(10)] == [pairs[77][0].fileno()]
    os.waitpid(child, 0)
    # A descriptor closed while its file lives on is still reported.
    r, w = os.pipe()
    e.register(r, select.EPOLLIN)
    other = os.dup(r)
    os.close(r)
    os.write(w, b"x")
    assert r in [fd for fd, _ in e.poll(0, 500)]
    os.close(other)
    assert r not in [fd for fd, _ in e.poll(0, 500)]

level()
edges()
print("as it should be")
