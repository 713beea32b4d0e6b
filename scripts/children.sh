# Sourced by scripts that start servers: children with a log each, that end with the script. The
# script calls end_children when it ends; logs are in $work, which it removes by itself.

work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL runs as another user when this is root
children=()

# start NAME COMMAND...: in the background, its output in $work/NAME.log. PostgreSQL comes first.
start() {
    local name=$1
    shift
    # In a process group of its own: Ctrl-C reaches the script alone, which ends the rest in order.
    set -m
    setpriv --pdeathsig TERM "$@" >"$work/$name.log" 2>&1 &
    children+=($!)
    set +m
}

# Last started, first ended: the daemon says goodbye to a database that is still there.
end_children() {
    local index signal
    for ((index = ${#children[@]} - 1; index >= 0; index--)); do
        signal=TERM
        # On SIGTERM PostgreSQL would wait for everybody to leave.
        if [ "$index" -eq 0 ]; then signal=INT; fi
        kill "-$signal" "${children[index]}" 2>/dev/null || continue
        wait "${children[index]}" 2>/dev/null || true
    done
}

# until_ok WHAT SECONDS NAME COMMAND...: waits until the command succeeds; NAME's log is shown if it
# does not.
until_ok() {
    local what=$1 deadline=$((SECONDS + $2)) log=$work/$3.log
    shift 3
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "not in time: $what" >&2
            tail -n 20 "$log" >&2
            exit 1
        fi
        sleep 0.1
    done
}
