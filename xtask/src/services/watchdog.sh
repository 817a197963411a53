# Runs a server until standard input closes, then stops it and removes its folder.
# Usage: sh watchdog.sh FOLDER SIGNAL COMMAND..
#
# The other end of standard input is held by the process that wants the server. However that process ends, kill -9
# and Ctrl-C included, the pipe closes and the server goes. FOLDER/log gets what the server prints, FOLDER/ended
# appears when it ended by itself, so that a failed start is seen at once and can be explained.
folder=$1
signal=$2
shift 2
exec 3<&0 </dev/null
"$@" >"$folder/log" 2>&1 3<&- &
server=$!
(
    cat <&3 >/dev/null
    [ -e "$folder/ended" ] && exit
    kill -s "$signal" "$server" 2>/dev/null
    sleep 10
    kill -s KILL "$server" 2>/dev/null
) &
stopper=$!
wait "$server"
: >"$folder/ended"
cat <&3 >/dev/null
kill "$stopper" 2>/dev/null
rm -rf "$folder"
