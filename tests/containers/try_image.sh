#!/usr/bin/env bash
# Builds docker/Dockerfile for real and runs the image as a container engine would, without a container engine: on a
# base that debootstrap makes of Debian's packages, where no official image can be fetched. Ends with 0 when the demo
# model has answered. Needs root, and Debian's buildah and debootstrap.
#   bash tests/containers/try_image.sh [PORT]
set -euo pipefail
cd "$(dirname "$0")/../.."
port=${1:-18431}
for program in buildah debootstrap unshare setpriv curl python3; do
    command -v "$program" >/dev/null || { echo "try_image: $program is missing (apt-get install buildah debootstrap curl)" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "try_image: only root may mount what a container is made of" >&2; exit 1; }

base=localhost/modelport-base image=localhost/modelport-tried work=$(mktemp -d /tmp/mp-image.XXXXXX) container= first=
cleanup() {
    [ -z "$first" ] || kill -KILL "$first" 2>/dev/null || true
    [ -z "$container" ] || buildah rm "$container" >/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/root" >"$work/log" 2>&1 \
        || { tail -5 "$work/log" >&2; exit 1; }
    container=$(buildah from scratch)
    buildah copy -q "$container" "$work/root" / >/dev/null
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    buildah commit -q "$container" "$base" >/dev/null
    buildah rm "$container" >/dev/null
    container=
fi
# This machine's certificates: a registry's mirror may have one of its own.
buildah bud --isolation chroot --format docker --layers --build-arg BASE="$base" -v /etc/ssl/certs:/etc/ssl/certs:ro \
    -f docker/Dockerfile -t "$image" . >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; exit 1; }
echo "built: $(buildah images --format '{{.Size}}' "$image") of which $(buildah images --format '{{.Size}}' "$base") are the base"

container=$(buildah from "$image")
root=$(buildah mount "$container")
mkdir "$work/state" "$work/cache"
chown 10001:10001 "$work/state" "$work/cache"
# What the image says is run, and in which environment.
buildah inspect --type image "$image" | python3 -c '
import json, shlex, sys
config = json.load(sys.stdin)["Docker"]["config"]
env = [pair for pair in config["Env"] if not pair.startswith(("API_PORT=", "API_HOST="))]
print(shlex.join([*env, f"API_PORT={sys.argv[1]}", "API_HOST=127.0.0.1", "API_KEY=of-the-try", *config["Entrypoint"], *config["Cmd"]]))
' "$port" >"$work/command"
export root work
# Namespaces of its own for processes, mounts and messages; a root that nobody can write to; no user, no right.
unshare --mount --pid --ipc --uts --fork --kill-child --propagation private bash -euc '
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    for device in null zero random urandom full; do
        touch "$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    mkdir "$root/dev/shm"
    mount -t tmpfs -o size=64m,mode=1777 shm "$root/dev/shm"
    mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs "$root/tmp"
    mount --bind "$work/state" "$root/var/lib/modelport"
    mount --bind "$work/cache" "$root/var/cache/modelport"
    eval "exec env -i /usr/sbin/chroot \"$root\" /usr/bin/setpriv --reuid 10001 --regid 10001 --clear-groups \
        --bounding-set=-all --inh-caps=-all --no-new-privs /usr/bin/env -C /var/lib/modelport $(cat "$work/command")"
' >"$work/printed" 2>&1 &
outer=$!
for _ in $(seq 120); do
    curl -sf "http://127.0.0.1:$port/readyz" >/dev/null && break
    kill -0 "$outer" 2>/dev/null || { cat "$work/printed" >&2; exit 1; }
    sleep 0.5
done
first=$(pgrep -P "$outer")
answer=$(curl -s "http://127.0.0.1:$port/v1/chat/completions" -H 'Authorization: Bearer of-the-try' -H 'Content-Type: application/json' \
    -d '{"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "What is 7+5?"}], "temperature": 0}' \
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["choices"][0]["message"]["content"])')
echo "answered: $answer"
grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' "/proc/$first/status" | tr '\n\t' '  '
echo
kill -TERM "$first"
for _ in $(seq 600); do
    kill -0 "$outer" 2>/dev/null || break
    sleep 0.1
done
code=0
wait "$outer" || code=$?
first=
echo "ended with $code"
[ "$code" = 0 ] && [[ "$answer" == *12* ]]
