# shellcheck shell=sh
# Ends a test server when the process that it was started for is gone, however that one ended.
#
#   sh watchdog.sh RUNNER DIR SIGNAL
#
# RUNNER is the process to outlive; DIR the server's directory, with its process group's id in the
# file `pid`; SIGNAL what ends the server without leaving anything in the kernel.

# Ctrl-C and a closing terminal reach every process that is around; this one still has to clean up.
trap '' HUP INT TERM

# A zombie still answers `kill -0`, but nothing will come from it any more.
alive() {
    kill -0 "$1" 2>/dev/null && ! grep -qs '^State:[[:space:]]*Z' "/proc/$1/status"
}

# The directory is gone once the owner has ended the server by itself.
while [ -d "$2" ]; do
    if ! alive "$1"; then
        pid=$(cat "$2/pid" 2>/dev/null)
        if [ -n "$pid" ]; then
            kill -s "$3" -- "-$pid" 2>/dev/null
            tries=0
            while alive "$pid" && [ "$tries" -lt 100 ]; do
                tries=$((tries + 1))
                sleep 0.1
            done
            kill -s KILL -- "-$pid" 2>/dev/null
        fi
        rm -rf "$2"
        exit
    fi
    sleep 0.5
done
