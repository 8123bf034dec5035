"""Groups on the interface to the outside, and what `/proc/net` says of the sockets of this very program."""
import os, socket, struct, time

def heard(receiver):
    receiver.settimeout(5)
    try:
        return receiver.recv(100)
    except TimeoutError:
        return None

def ipv4():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("", 0))
    here = socket.inet_aton("10.0.2.15")
    u.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.9.9.9") + here)
    v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    v.sendto(b"to the group", ("239.9.9.9", u.getsockname()[1]))
    print(heard(u))
    v.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    v.sendto(b"not to us", ("239.9.9.9", u.getsockname()[1]))
    v.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    v.sendto(b"to all", ("255.255.255.255", u.getsockname()[1]))
    data, sender = u.recvfrom(100)
    print(data, sender[0])

def ipv6():
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    u.bind(("::", 0))
    index = socket.if_nametoindex("eth0")
    group = socket.inet_pton(socket.AF_INET6, "ff02::9:9") + struct.pack("i", index)
    u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    v = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    v.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    v.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 7)
    v.sendto(b"six", ("ff02::9:9", u.getsockname()[1]))
    data, notes, _, _ = u.recvmsg(100, 100)
    print(data, [(kind, struct.unpack("i", value)) for _, kind, value in notes])
    u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_LEAVE_GROUP, group)
    v.sendto(b"gone", ("ff02::9:9", u.getsockname()[1]))
    u.setblocking(False)
    try:
        print(u.recv(100))
    except BlockingIOError:
        print("left")

def listed():
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    other, _ = server.accept()
    client.send(b"12345")
    lines = [line.split() for line in open("/proc/net/tcp")][1:]
    by_inode = {int(line[9]): line for line in lines}
    for one in (server, client, other):
        line = by_inode[os.fstat(one.fileno()).st_ino]
        assert int(line[1].split(":")[1], 16) == one.getsockname()[1], line
        print(line[1].split(":")[0], line[3], line[4].split(":")[1])
    other.close()
    assert len(open("/proc/self/net/tcp").readlines()) == 3
    name = "/tmp/%d.sock" % os.getpid()
    one = socket.socket(socket.AF_UNIX)
    one.bind(name)
    one.listen()
    assert any(line.split()[-1] == name and line.split()[3] == "00010000" for line in open("/proc/net/unix"))
    os.unlink(name)

ipv4()
ipv6()
listed()
