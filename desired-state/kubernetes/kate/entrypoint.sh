#!/bin/bash
# Shows one program on a virtual display, and the display on a VNC server on loopback. The container ends when the
# program, the display or the server does, so that Kubernetes starts it anew.
set -euo pipefail

program=${PROGRAM:-kate}
width=${VNC_RESOLUTION_WIDTH:-1280}
height=${VNC_RESOLUTION_HEIGHT:-720}
port=${VNC_SERVER_PORT:-5900}

export DISPLAY=:99
export XAUTHORITY=${HOME:?}/.Xauthority
export XDG_RUNTIME_DIR=/tmp/runtime
mkdir -p "$XDG_RUNTIME_DIR"
chmod 0700 "$XDG_RUNTIME_DIR"

cookie=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
touch "$XAUTHORITY"
chmod 0600 "$XAUTHORITY"
xauth -q add "$DISPLAY" . "$cookie"

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

Xvfb "$DISPLAY" -screen 0 "${width}x${height}x24" -auth "$XAUTHORITY" -nolisten tcp &

# The VNC server needs a display that is there.
for _ in $(seq 50); do
    if xdpyinfo >/dev/null 2>&1; then
        break
    fi
    sleep 0.2
done
if ! xdpyinfo >/dev/null; then
    echo "the virtual display did not come up within 10 s" >&2
    exit 1
fi

# Without a password: only Guacamole's proxy in the same Pod reaches loopback, and it asks for a login before.
x11vnc -display "$DISPLAY" -auth "$XAUTHORITY" -localhost -rfbport "$port" -forever -shared -nopw -quiet &
"$program" --geometry "${width}x${height}+0+0" &

wait -n
