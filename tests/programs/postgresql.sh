# A database server from nothing: its files, the server, questions over both kinds of socket, a load, and an orderly end.
# Prints what does not differ from run to run. The server refuses to run as root.
if [ "$(id -u)" = 0 ]; then
    exec python3 -c 'import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.execvp("sh", ["sh", sys.argv[1]])' "$0"
fi
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export LC_ALL=C HOME=/tmp
cd "$(mktemp -d /tmp/database.XXXXXX)" || exit 1
here=$PWD
initdb -D data -A trust --no-sync -U one > initdb.log 2>&1 || { cat initdb.log; exit 1; }
options="-k $here -c listen_addresses=localhost -c port=54329 -c shared_buffers=8MB -c max_connections=20"
pg_ctl -D data -o "$options" -l log -w -t 200 start > start.log || { cat start.log log; exit 1; }
export PGUSER=one PGDATABASE=postgres PGPORT=54329
psql -h "$here" -At -c 'select 1 + 1'
psql -h localhost -At -c 'create table t (a int, b text)' \
    -c "insert into t select i, md5(i::text) from generate_series(1, 2000) i" -c 'select sum(a), min(b), max(b) from t'
pgbench -h "$here" -i -s 1 -q 2>> bench.log || cat bench.log
pgbench -h "$here" -c 4 -j 2 -t 25 2>> bench.log | grep -E 'actually processed|failed transactions'
pgbench -h localhost -c 2 -t 10 -S 2>> bench.log | grep -E 'actually processed|failed transactions'
pg_ctl -D data -m fast -w stop > stop.log || cat stop.log
grep -E 'PANIC|FATAL|ERROR|server process' log
tail -n 1 log | sed 's/.*LOG: *//'
cd / && rm -rf "$here"
