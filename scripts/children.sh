# Sourced by scripts that start servers. Each child has its own log in $work. The sourcing script
# calls end_children and removes $work when it ends.

work=$(mktemp -d)
chmod 755 "$work" # PostgreSQL runs as another user when this is root
children=()

# start NAME COMMAND...: runs it in the background, with its output in $work/NAME.log. Start
# PostgreSQL first.
start() {
    local name=$1
    shift
    # In its own process group: Ctrl-C reaches only the script, which stops the rest in order.
    set -m
    setpriv --pdeathsig TERM "$@" >"$work/$name.log" 2>&1 &
    children+=($!)
    set +m
}

# Last started, first stopped: the daemon drains while its database is still running.
end_children() {
    local index signal
    for ((index = ${#children[@]} - 1; index >= 0; index--)); do
        signal=TERM
        # On SIGTERM, PostgreSQL would wait for its clients to disconnect.
        if [ "$index" -eq 0 ]; then signal=INT; fi
        kill "-$signal" "${children[index]}" 2>/dev/null || continue
        wait "${children[index]}" 2>/dev/null || true
    done
}

# until_ok WHAT SECONDS NAME COMMAND...: waits until the command succeeds. If it does not in time,
# prints the end of NAME's log and exits.
until_ok() {
    local what=$1 deadline=$((SECONDS + $2)) log=$work/$3.log
    shift 3
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "timed out: $what" >&2
            tail -n 20 "$log" >&2
            exit 1
        fi
        sleep 0.1
    done
}
