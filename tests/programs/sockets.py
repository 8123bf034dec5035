# Python's own ways to speak over sockets: asyncio, http.server, socketserver, multiprocessing. Prints the same everywhere.
import asyncio, socketserver, http.server, threading, urllib.request, multiprocessing, os, socket
async def echo(r,w):
    while True:
        d=await r.read(1000)
        if not d: break
        w.write(d.upper()); await w.drain()
    w.close()
async def main():
    s=await asyncio.start_server(echo,'127.0.0.1',0); port=s.sockets[0].getsockname()[1]
    async def one(i):
        r,w=await asyncio.open_connection('127.0.0.1',port)
        out=[]
        for k in range(5):
            w.write(b'm%d.%d'%(i,k)); await w.drain(); out.append(await r.read(100))
        w.close(); await w.wait_closed(); return b','.join(out)
    for x in await asyncio.gather(*[one(i) for i in range(10)]): print(x)
    s.close(); await s.wait_closed()
    s=await asyncio.start_unix_server(echo,'/tmp/a.sock'); r,w=await asyncio.open_unix_connection('/tmp/a.sock'); w.write(b'unix'); print(await r.read(10)); w.close(); s.close()
    p=await asyncio.create_subprocess_exec('cat',stdin=-1,stdout=-1); print(await p.communicate(b'sub'))
    loop=asyncio.get_running_loop()
    class P(asyncio.DatagramProtocol):
        def connection_made(self,t): self.t=t
        def datagram_received(self,d,a): self.t.sendto(d+b'!',a)
    t,p=await loop.create_datagram_endpoint(P,('127.0.0.1',0))
    u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.setblocking(False); u.connect(t.get_extra_info('sockname')); u.send(b'dg'); print(await loop.sock_recv(u,100))
asyncio.run(main())
os.chdir('/usr/share/common-licenses')
class H(http.server.SimpleHTTPRequestHandler):
    def log_message(self,*a): pass
h=http.server.ThreadingHTTPServer(('localhost',0),H); threading.Thread(target=h.serve_forever,daemon=True).start()
import hashlib
for i in range(3): print(hashlib.md5(urllib.request.urlopen('http://localhost:%d/GPL-3'%h.server_port).read()).hexdigest())
h.shutdown()
class T(socketserver.StreamRequestHandler):
    def handle(self): 
        for l in self.rfile: self.wfile.write(l[::-1])
with socketserver.ThreadingTCPServer(('127.0.0.1',0),T) as s:
    threading.Thread(target=s.serve_forever,daemon=True).start()
    c=socket.create_connection(s.server_address); c.sendall(b'abc\ndef\n'); c.shutdown(1); print(c.makefile().read()); s.shutdown()
from multiprocessing.connection import Listener, Client
def srv(l):
    c=l.accept(); c.send([1,2,c.recv()]); c.close()
for fam in ('AF_INET','AF_UNIX'):
    l=Listener(family=fam); p=multiprocessing.Process(target=srv,args=(l,)); p.start(); c=Client(l.address); c.send({'a':1}); print(c.recv()); p.join(); print(p.exitcode); l.close()
def f(c): c.send('x'*100000); c.close()
a,b=multiprocessing.Pipe(); p=multiprocessing.Process(target=f,args=(b,)); p.start(); print(len(a.recv())); p.join()
m=multiprocessing.Manager(); d=m.dict(); d['k']=3; print(dict(d)); m.shutdown()
with multiprocessing.Pool(3) as p: print(p.map(abs,range(-5,5)))
