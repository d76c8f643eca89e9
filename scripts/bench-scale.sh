#!/usr/bin/env bash
# How long configurations of many sizes take: loading them, changing one entry, listing them. Medians of several runs.
# In a namespace of its own; needs root. docs/scale.md has what was seen.
set -euo pipefail

sluice=${1:-target/release/sluice}
sizes=${2:-5000 10000 50000 100000}
loads=${3:-5}
changes=${4:-11}
run=$(mktemp -d)
name=sluice-scale-$$
director=

end() {
    if [ -n "$director" ]; then
        kill "$director" 2>/dev/null || true
        wait "$director" 2>/dev/null || true
    fi
    ip netns exec "$name" "$sluice" director --remove --pin "$run/bpf/sluice" \
        --socket "$run/sock" --state "$run/state" >/dev/null 2>&1 || true
    umount "$run/bpf" 2>/dev/null || true
    ip netns delete "$name" 2>/dev/null || true
    rm -rf "$run"
}
trap end EXIT

# Entries: a service and its real server are one.
rules() {
    awk -v n="$1" 'BEGIN {
        for (i = 0; i < n; i++) {
            vip = sprintf("10.%d.%d.%d:80", 1 + i / 65536, (i / 256) % 256, i % 256)
            printf "-A -t %s -s wlc\n-a -t %s -r 172.16.%d.%d:80 -g -w 1\n", vip, vip, (i / 250) % 250, 1 + i % 250
        }
    }'
}

milliseconds() {
    local before after
    before=$(date +%s%N)
    "$@" >/dev/null
    after=$(date +%s%N)
    echo $(((after - before) / 1000000))
}

median() {
    sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

# Loads into an empty director.
load() {
    "$sluice" ipvsadm -C
    milliseconds restore "$1"
}

# Gives a real server another weight.
change() {
    milliseconds "$sluice" ipvsadm -e -t 10.1.0.0:80 -r 172.16.0.1:80 -g -w "$1"
}

restore() {
    "$sluice" ipvsadm -R <"$1"
}

ip netns add "$name"
ip netns exec "$name" ip link set lo up
ip netns exec "$name" ip link add s0 type veth peer name s1
ip netns exec "$name" ip link set s0 up
ip netns exec "$name" ip link set s1 up
mkdir "$run/bpf"
mount -t bpf bpf "$run/bpf"
export SLUICE_SOCKET=$run/sock
ip netns exec "$name" "$sluice" director --interface s0 --pin "$run/bpf/sluice" --state "$run/state" \
    --services-max 262144 --reals-max 262144 --slots-max 1048576 >/dev/null 2>"$run/log" &
director=$!
for _ in $(seq 200); do
    if "$sluice" status >/dev/null 2>&1; then break; fi
    sleep 0.1
done

echo "load average before: $(cut -d ' ' -f 1-3 /proc/loadavg)"
echo "entries  load ms  one change ms  most ms  list ms  daemon MB"
for entries in $sizes; do
    rules "$entries" >"$run/rules"
    load=$(for _ in $(seq "$loads"); do load "$run/rules"; done | median)
    for number in $(seq "$changes"); do change $((number + 1)); done >"$run/changes"
    list=$(milliseconds "$sluice" ipvsadm -Ln)
    memory=$(awk '/VmRSS/ { print int($2 / 1024) }' "/proc/$director/status")
    printf '%7d  %7d  %13d  %7d  %7d  %9d\n' "$entries" "$load" "$(median <"$run/changes")" \
        "$(sort -n "$run/changes" | tail -n 1)" "$list" "$memory"
done
echo "load average after: $(cut -d ' ' -f 1-3 /proc/loadavg)"
