#!/usr/bin/env bash
# What `etcdctl` prints against a server of one member, check by check.
#
#   compat/etcdctl.sh PROGRAM [FLAGS...]    starts the server with these flags and its own on free ports
#
# The server is `quorate serve`, or an `etcd` whose answers are known to be right: what is expected here is what an
# etcd says. Lines that `etcdctl` logs about itself (JSON) are not compared; of ids and times only their form is.
set -uo pipefail

[ $# -ge 1 ] || { echo "usage: $0 PROGRAM [FLAGS...]" >&2; exit 2; }
command -v etcdctl >/dev/null || { echo "$0: there is no etcdctl; Debian has it in etcd-client" >&2; exit 2; }

dir=$(mktemp -d)
server=
finish() {
    [ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null
    rm -rf "$dir"
}
trap finish EXIT

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
client=http://127.0.0.1:$(free_port)
peer=http://127.0.0.1:$(free_port)
"$@" --name one --data-dir "$dir/data" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" \
    >"$dir/log" 2>&1 &
server=$!
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=$client
for _ in $(seq 100); do
    etcdctl endpoint health >/dev/null 2>&1 && break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done

passed=0
failed=0

# Runs a command; what it prints on both streams, and its exit code if that is not 0, must be `expected`.
check() {
    local name=$1 expected=$2 got code
    shift 2
    got=$("$@" 2>&1 </dev/null)
    code=$?
    compare "$name" "$expected" "$got" "$code"
}

# The same with an input.
check_in() {
    local name=$1 expected=$2 input=$3 got code
    shift 3
    got=$(printf '%b' "$input" | "$@" 2>&1)
    code=$?
    compare "$name" "$expected" "$got" "$code"
}

compare() {
    local name=$1 expected=$2 got=$3 code=$4
    got=$(grep -v '^{"level"' <<<"$got")
    [ "$code" = 0 ] || got+="${got:+$'\n'}[$code]"
    if [ "$got" = "$expected" ]; then
        passed=$((passed + 1))
        echo "ok      $name"
    else
        failed=$((failed + 1))
        echo "FAILED  $name"
        diff <(echo "$expected") <(echo "$got") | sed 's/^/        /'
    fi
}

# A command whose output passes a filter.
filtered() {
    local filter=$1 code
    shift
    "$@" 2>&1 | sed -E "$filter"
    code=${PIPESTATUS[0]}
    return "$code"
}
# A command that goes on until it is stopped, and all it has printed.
for_a_while() { timeout 1.5 "$@"; local code=$?; [ "$code" = 124 ] || return "$code"; }
revision() { etcdctl get x -w fields | sed -n 's/"Revision" : //p'; }

e=etcdctl

echo "== keys"
check "put"                       "OK"                     $e put foo bar
check "get"                       $'foo\nbar'              $e get foo
check "get: nothing there"        ""                       $e get nothing
check "get: value only"           "bar"                    $e get foo --print-value-only
check "get: hex"                  $'\\x66\\x6f\\x6f\n\\x62\\x61\\x72' $e get foo --hex
check "put: previous"             $'OK\nfoo\nbar'          $e put foo bar2 --prev-kv
check_in "put: from stdin"        "OK"  "line"             $e put in
check "get: what stdin said"      "line"                   $e get in --print-value-only
check "put: keep the value"       "OK"                     $e put foo --ignore-value
check "get: fields"  $'"Revision" : 5\n"Key" : "foo"\n"CreateRevision" : 2\n"ModRevision" : 5\n"Version" : 3\n"Value" : "bar2"\n"Lease" : 0\n"More" : false\n"Count" : 1' \
    filtered '/ClusterID|MemberID|RaftTerm/d' $e get foo -w fields
check "get: json"    '{"header":{"cluster_id":N,"member_id":N,"revision":5,"raft_term":N},"kvs":[{"key":"Zm9v","create_revision":2,"mod_revision":5,"version":3,"value":"YmFyMg=="}],"count":1}' \
    filtered 's/("(cluster_id|member_id|raft_term)":)[0-9]+/\1N/g' $e get foo -w json
check "put: keep the value of nothing" $'Error: etcdserver: key not found\n[1]' $e put nothing --ignore-value
check "put: keep the lease of nothing" $'Error: etcdserver: key not found\n[1]' $e put nothing x --ignore-lease
check "put: no key"               $'Error: etcdserver: key is not provided\n[1]' $e put "" x
check "put: a lease that is none" $'Error: etcdserver: requested lease not found\n[1]' $e put foo x --lease=1234
for key in a b c d; do $e put "k/$key" "v$key" >/dev/null; done
check "get: prefix"               $'k/a\nva\nk/b\nvb\nk/c\nvc\nk/d\nvd' $e get k/ --prefix
check "get: keys only"            $'k/a\n\nk/b\n\nk/c\n\nk/d' $e get k/ --prefix --keys-only
check "get: limit"                $'k/a\nva\nk/b\nvb'      $e get k/ --prefix --limit=2
check "get: more than the limit"  $'"More" : true\n"Count" : 4' \
    filtered '/More|Count/!d' $e get k/ --prefix --limit=2 -w fields
check "get: range"                $'k/b\nvb\nk/c\nvc'      $e get k/b k/d
check "get: from key"             $'k/c\nvc\nk/d\nvd'      $e get k/c --from-key
check "get: descending"           $'k/d\nk/c\nk/b\nk/a' \
    filtered '/^$/d' $e get k/ --prefix --keys-only --order=DESCEND
$e put k/b vb2 >/dev/null
check "get: by modification"      $'k/a\nk/c\nk/d\nk/b' \
    filtered '/^$/d' $e get k/ --prefix --keys-only --sort-by=MODIFY --order=ASCEND
check "get: by version"           "k/b" \
    filtered '/^$/d' $e get k/ --prefix --keys-only --sort-by=VERSION --order=DESCEND --limit=1
check "get: by value"             "k/d" \
    filtered '/^$/d' $e get k/ --prefix --keys-only --sort-by=VALUE --order=DESCEND --limit=1
check "get: as it was"            $'k/b\nvb'               $e get k/b --rev=9
check "get: serializable"         $'k/b\nvb2'              $e get k/b --consistency=s
check "get: a revision to come"   $'Error: etcdserver: mvcc: required revision is a future revision\n[1]' $e get foo --rev=9999
check "get: everything"           "6"  bash -c "$e get '' --prefix --keys-only | grep -c ."
check "del"                       "1"                      $e del in
check "del: nothing there"        "0"                      $e del in
check "del: previous"             $'1\nk/d\nvd'            $e del k/d --prev-kv
check "del: prefix"               "3"                      $e del k/ --prefix
check "del: range"                "0"                      $e del k/a k/z
for key in x1 x2 x3; do $e put $key y >/dev/null; done
check "del: from key"             "3"                      $e del x1 --from-key

echo "== transactions"
check_in "txn: success"  $'SUCCESS\n\nOK' 'value("foo") = "bar2"\n\nput t yes\n\nput t no\n\n' $e txn
check_in "txn: failure"  $'FAILURE\n\nOK\n\nt\nyes' 'version("foo") = "9"\n\n\nput u no\nget t\n\n' $e txn
check_in "txn: versions and revisions" $'SUCCESS\n\n1' \
    'create("foo") = "2"\nmod("foo") > "2"\nver("foo") = "3"\n\ndel t\n\n\n' $e txn
check_in "txn: a key that is not there" $'SUCCESS\n\nOK' 'create("new") = "0"\n\nput new 1\n\n\n' $e txn
check_in "txn: twice the same key" $'Error: etcdserver: duplicate key given in txn request\n[1]' \
    '\nput d 1\nput d 2\n\n\n' $e txn
ops=$(for n in $(seq 129); do printf 'put m%s x\\n' "$n"; done)
check_in "txn: too many" $'Error: etcdserver: too many operations in txn request\n[1]' "\n$ops\n\n" $e txn

echo "== watches"
$e put w 1 >/dev/null
from=$(revision)
$e put w 2 >/dev/null
$e del w >/dev/null
check "watch: from a revision"    $'PUT\nw\n1\nPUT\nw\n2\nDELETE\nw' for_a_while $e watch w --rev="$from"
check "watch: previous"           $'PUT\nw\n1\nPUT\nw\n1\nw\n2\nDELETE\nw\n2\nw' for_a_while $e watch w --prev-kv --rev="$from"
check "watch: prefix"             $'PUT\nw\n1\nPUT\nw\n2\nDELETE\nw' for_a_while $e watch w --prefix --rev="$from"
check "watch: range"              $'PUT\nw\n1\nPUT\nw\n2\nDELETE\nw' for_a_while $e watch w x --rev="$from"
check "watch: json"               '{"Header":{"cluster_id":N,"member_id":N,"revision":R,"raft_term":N},"Events":[{"kv":{"key":"dw==","create_revision":R,"mod_revision":R,"version":1,"value":"MQ=="}},{"kv":{"key":"dw==","create_revision":R,"mod_revision":R,"version":2,"value":"Mg=="}},{"type":1,"kv":{"key":"dw==","mod_revision":R}}],"CompactRevision":0,"Canceled":false,"Created":false}' \
    filtered 's/("(cluster_id|member_id|raft_term)":)[0-9]+/\1N/g; s/("[a-z_]*revision":)[0-9]+/\1R/g' for_a_while $e watch w --rev="$from" -w json
(sleep 0.5; $e put live 1; $e put other 2; $e del live) >/dev/null &
check "watch: live"               $'PUT\nlive\n1\nDELETE\nlive' for_a_while $e watch live
wait $!
(sleep 0.5; $e put live 3) >/dev/null &
check "watch: a command"          $'PUT\nlive\n3\n"PUT" "live" "3"' \
    for_a_while $e watch live -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE'
wait $!
check_in "watch: interactive"     $'PUT\nw\n1\nPUT\nw\n2\nDELETE\nw' "watch w --rev=$from\n" \
    bash -c "(cat; sleep 2) | timeout 1 $e watch -i; true"
(sleep 0.5; printf 'one\nput ab 1\n' >/dev/null; printf '\nput p1 x\nput p2 y\n\n\n' | $e txn) >/dev/null &
check "watch: both of a transaction" $'PUT\np1\nx\nPUT\np2\ny' for_a_while $e watch p --prefix
wait $!

echo "== compaction"
now=$(revision)
check "compact"                   "compacted revision $now" $e compact "$now"
check "compact: once more"        $'Error: etcdserver: mvcc: required revision has been compacted\n[1]' $e compact "$now"
check "compact: to come"          $'Error: etcdserver: mvcc: required revision is a future revision\n[1]' $e compact 99999
check "get: compacted"            $'Error: etcdserver: mvcc: required revision has been compacted\n[1]' $e get foo --rev=3
check "watch: compacted"          $'watch was canceled (etcdserver: mvcc: required revision has been compacted)\nError: watch is canceled by the server\n[5]' \
    for_a_while $e watch w --rev=3
$e put foo again >/dev/null
now=$(revision)
check "compact: physical"         "compacted revision $now" $e compact --physical "$now"

echo "== leases"
check "lease grant"               "lease ID granted with TTL(100s)" filtered 's/[0-9a-f]{8,16}/ID/' $e lease grant 100
lease=$($e lease list | tail -1)
check "lease list"                $'found 1 leases\nID' filtered 's/^[0-9a-f]{8,16}$/ID/' $e lease list
check "put: with a lease"         "OK"                     $e put leased 1 --lease="$lease"
check "lease timetolive"          "lease ID granted with TTL(100s), remaining(Ns)" \
    filtered "s/$lease/ID/; s/remaining\((100|9[0-9])s\)/remaining(Ns)/" $e lease timetolive "$lease"
check "lease timetolive: keys"    "lease ID granted with TTL(100s), remaining(Ns), attached keys([leased])" \
    filtered "s/$lease/ID/; s/remaining\((100|9[0-9])s\)/remaining(Ns)/" $e lease timetolive "$lease" --keys
check "lease keep-alive: once"    "lease ID keepalived with TTL(100)" filtered "s/$lease/ID/" $e lease keep-alive --once "$lease"
check "put: keep the lease"       "OK"                     $e put leased 2 --ignore-lease
check "lease revoke"              "lease ID revoked"       filtered "s/$lease/ID/" $e lease revoke "$lease"
check "lease: its keys are gone"  ""                       $e get leased
check "lease revoke: once more"   $'Error: failed to revoke lease (etcdserver: requested lease not found)\n[1]' $e lease revoke "$lease"
check "lease timetolive: gone"    "lease ID already expired" filtered "s/$lease/ID/" $e lease timetolive "$lease"
check "lease keep-alive: gone"    $'Error: etcdserver: requested lease not found\n[2]' $e lease keep-alive --once "$lease"
check "lease grant: too long"     $'Error: failed to grant lease (etcdserver: too large lease TTL)\n[1]' $e lease grant 9000000001
short=$($e lease grant 1 | cut -d' ' -f2)
$e put short 1 --lease="$short" >/dev/null
sleep 4
check "lease: expires"            ""                       $e get short

echo "== members and upkeep"
check "member list"               "ID, started, one, $peer, $client, false" filtered 's/^[0-9a-f]{12,16}/ID/' $e member list
check "member list: json"         '{"header":{"cluster_id":N,"member_id":N,"raft_term":N},"members":[{"ID":N,"name":"one","peerURLs":["P"],"clientURLs":["C"]}]}' \
    filtered "s/(\"(cluster_id|member_id|raft_term|ID)\":)[0-9]+/\\1N/g; s,$peer,P,; s,$client,C,; s/\"revision\":[0-9]+,//" $e member list -w json
check "member remove: unknown"    $'Error: etcdserver: member not found\n[1]' $e member remove 1
check "member update: unknown"    $'Error: etcdserver: member not found\n[1]' $e member update 1 --peer-urls=http://127.0.0.1:1
check "member promote: unknown"   $'Error: etcdserver: member not found\n[1]' $e member promote 1
self=$($e member list | cut -d, -f1)
check "member promote: a voter"   $'Error: etcdserver: can only promote a learner member\n[1]' $e member promote "$self"
check "member remove: the only"   $'Error: etcdserver: re-configuration failed due to not enough started members\n[1]' $e member remove "$self"
check "member add: a known URL"   $'Error: etcdserver: Peer URLs already exists\n[1]' $e member add two --peer-urls="$peer"
check "member add: a learner"     "Member ID added to cluster ID" \
    filtered '/^Member/!d; s/ +/ /g; s/[0-9a-f]{12,16}/ID/g' $e member add two --learner --peer-urls=http://127.0.0.1:1
learner=$($e member list | grep unstarted | cut -d, -f1)
check "member list: the learner"  "ID, unstarted, , http://127.0.0.1:1, , true" \
    bash -c "$e member list | grep unstarted | sed 's/^[0-9a-f]*/ID/'"
check "member promote: not ready" $'Error: etcdserver: can only promote a learner member which is in sync with leader\n[1]' $e member promote "$learner"
check "member add: more learners" $'Error: etcdserver: too many learner members in cluster\n[1]' \
    $e member add three --learner --peer-urls=http://127.0.0.1:2
check "member remove"             "Member ID removed from cluster ID" \
    filtered 's/ +/ /g; s/[0-9a-f]{12,16}/ID/g' $e member remove "$learner"
check "endpoint health"           "$client is healthy: successfully committed proposal: took = T" \
    filtered 's/took = .*/took = T/' $e endpoint health
check "endpoint status"           "$client, ID, VERSION, SIZE, true, false, N, N, N, " \
    filtered 's/, [0-9a-f]{12,16}, [0-9]+\.[0-9]+\.[0-9]+, [0-9.]+ [kM]?B, /, ID, VERSION, SIZE, /; s/, [0-9]+/, N/g' $e endpoint status
check "endpoint hashkv"           "$client, N" filtered 's/, [0-9]+$/, N/' $e endpoint hashkv
check "alarm list"                "" $e alarm list
check "alarm disarm"              "" $e alarm disarm
check "defrag"                    "Finished defragmenting etcd member[$client]" $e defrag
check "snapshot save"             "Snapshot saved at $dir/snapshot" $e snapshot save "$dir/snapshot"
check "snapshot save: its size"   "32" bash -c "echo \$((\$(stat -c %s '$dir/snapshot') % 512))"
check "move-leader: unknown"      $'Error: etcdserver: bad leader transferee\n[1]' $e move-leader 1
check "get: after all this"       $'foo\nagain' $e get foo

echo "== locks and elections of clients"
check "lock: a command"           "mine" $e lock mutex -- sh -c 'test -n "$ETCD_LOCK_KEY" && echo mine'
check "elect: what is proclaimed" $'leader/ID\nme' \
    filtered 's,leader/[0-9a-f]+,leader/ID,' for_a_while $e elect leader me

echo "== the data outlive the process"
kill -9 "$server"; wait "$server" 2>/dev/null
"$@" --name one --data-dir "$dir/data" --listen-client-urls "$client" --advertise-client-urls "$client" \
    --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "one=$peer" \
    >>"$dir/log" 2>&1 &
server=$!
for _ in $(seq 100); do etcdctl endpoint health >/dev/null 2>&1 && break; sleep 0.1; done
check "get: after kill -9"        $'foo\nagain' $e get foo
check "member list: as before"    "$self, started, one, $peer, $client, false" $e member list

echo
echo "$passed checks passed, $failed failed"
if [ "$failed" -gt 0 ]; then
    echo "the server's last words:"
    tail -20 "$dir/log"
    exit 1
fi
