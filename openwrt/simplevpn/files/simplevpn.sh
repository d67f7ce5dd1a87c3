#!/bin/sh
# netifd's handler of the protocol `simplevpn`:
#
#   config interface 'vpn0'
#           option proto 'simplevpn'
#
# netifd runs it as `./simplevpn.sh simplevpn ACTION INTERFACE DECLARED-OPTIONS`, in the directory
# it lies in, and once as `./simplevpn.sh '' dump`. Declared options stand in the arguments, which
# `ps` shows to everybody: keys are never declared. The daemon gets them, and all else, from its own
# copy of the configuration. It announces the interface to netifd itself, once TUN and sockets are
# open, and follows WAN and its peers' names alone: none of them is a condition for starting.
#
# In the run directory, of mode 0700:
#   INTERFACE.uci      what the daemon was given: the output of `uci export network`, which has
#                      uncommitted edits in it, as what netifd sees has them
#   INTERFACE.refused  says that INTERFACE.uci is wrong; /etc/init.d/simplevpn brings the interface
#                      up when its configuration changes
#   INTERFACE.crashed  how often the daemon ended by itself lately, and the uptime of the last time
#
# shellcheck shell=dash
# shellcheck disable=SC2034 # netifd's functions read variables that are only set here
# shellcheck disable=SC2154 # and set some that are only read here

RUN=${SIMPLEVPN_RUN_DIR:-/var/run/simplevpn}
PROGRAM=$IPKG_INSTROOT/usr/sbin/simplevpn
# After this many seconds without a crash, those before are forgotten.
CALM=300
# The longest wait before the next start, in seconds.
PATIENCE=60

[ -n "$INCLUDE_ONLY" ] || {
	# shellcheck source=/dev/null
	. "$IPKG_INSTROOT/lib/functions/network.sh"
	# shellcheck source=/dev/null
	. ../netifd-proto.sh
	init_proto "$@"
}

proto_simplevpn_init_config() {
	no_device=1
	available=1
	renew_handler=1
	lasterror=1

	# What can change only with a new daemon: netifd tears the interface down and sets it up again
	# when one of these was edited. All else is for `renew`.
	proto_config_add_array addresses
	proto_config_add_string mtu
	proto_config_add_int port
	proto_config_add_int nat_port
	proto_config_add_string steering
	proto_config_add_boolean killswitch
	proto_config_add_string tunlink
	proto_config_add_string fwmark
	proto_config_add_string state_dir
	proto_config_add_string zone
}

log() {
	logger -t simplevpn -p "daemon.$1" "$2"
}

uptime() {
	local seconds
	read -r seconds _ </proc/uptime
	echo "${seconds%%.*}"
}

# Says why the configuration of $1 is not used, in the log and in `ifstatus`.
complain() {
	log err "$1: $2"
	proto_notify_error "$1" "$2"
}

# Gives the configuration of interface $1 to its daemon, as INTERFACE.uci, if it can run. Otherwise
# complains and leaves it in INTERFACE.uci.new. Of errors in some peers, which are left out, the
# daemon tells log and netifd.
export_network() {
	local interface=$1 file=$RUN/$1.uci status said reason line

	if ! said=$(umask 077 && mkdir -p "$RUN" && uci export network 2>&1 >"$file.new"); then
		complain "$interface" "uci export network: $said"
		return 1
	fi
	said=$("$PROGRAM" check "$file.new" "$interface" 2>&1 >/dev/null)
	status=$?
	reason=
	while read -r line; do
		[ -n "$line" ] || continue
		# A line number is one of what `uci export network` prints.
		case $line in
		"$file.new"*) line="uci export network${line#"$file.new"}" ;;
		esac
		if [ "$status" = 0 ] || [ "$status" = 4 ]; then
			case $status:$line in
			0:* | *": warning: "*) log warn "$interface: $line" ;;
			esac
		elif [ -z "$reason" ]; then
			reason=$line
			complain "$interface" "$reason"
		else
			log err "$interface: $line"
		fi
	done <<-END
	$said
	END
	if [ "$status" = 0 ] || [ "$status" = 4 ]; then
		mv "$file.new" "$file"
		return
	fi
	[ -n "$reason" ] || complain "$interface" "simplevpn check failed with status $status"
	return 1
}

# netifd starts again at once what ended: waits, the longer the more often it did so lately.
back_off() {
	local interface=$1 count last wait

	read -r count last 2>/dev/null <"$RUN/$interface.crashed" || return 0
	[ $(($(uptime) - last)) -lt "$CALM" ] || return 0
	wait=$PATIENCE
	[ "$count" -gt 6 ] || wait=$((1 << (count - 1)))
	log warn "$interface: the daemon ended by itself, $count in a row; next start in $wait s"
	sleep "$wait"
}

remember_crash() {
	local interface=$1 count=0 last=0 now

	now=$(uptime)
	read -r count last 2>/dev/null <"$RUN/$interface.crashed"
	[ $((now - last)) -lt "$CALM" ] || count=0
	echo "$((count + 1)) $now" >"$RUN/$interface.crashed"
}

# No more starts until the configuration changes or someone asks for it.
refuse() {
	touch "$RUN/$1.refused"
	proto_block_restart "$1"
}

proto_simplevpn_setup() {
	local interface=$1 tunlink device

	json_get_vars tunlink
	back_off "$interface"
	if ! export_network "$interface"; then
		mv "$RUN/$interface.uci.new" "$RUN/$interface.uci"
		refuse "$interface"
		return
	fi
	rm -f "$RUN/$interface.refused"

	if [ -n "$tunlink" ]; then
		network_get_device device "$tunlink" || log notice "$interface: waiting for $tunlink"
		# Ends this script if the uplink is not there, and starts it again when it comes.
		proto_add_host_dependency "$interface" '' "$tunlink"
		[ -n "$device" ] || return 0
	fi

	proto_run_command "$interface" "$PROGRAM" run --netifd \
		${device:+--tunlink "$device"} "$RUN/$interface.uci" "$interface"
}

# Peers whose sections did not change keep their SAs. A peer with an error is left out; with an error
# of the interface, or in all peers, what runs goes on as it is.
proto_simplevpn_renew() {
	local interface=$1

	if export_network "$interface"; then
		proto_kill_command "$interface" 1
	else
		rm -f "$RUN/$interface.uci.new"
	fi
}

# Whether the configuration, as it is now, wants nothing of $1 to leave in the clear; one that cannot
# be read changes nothing.
stays_closed() {
	uci -q export network >/dev/null || return 0
	[ "$(uci -q get "network.$1.proto")" = simplevpn ] || return
	case $(uci -q get "network.$1.disabled") in
	1 | on | true | yes | enabled) return 1 ;;
	esac
	case $(uci -q get "network.$1.killswitch") in
	0 | off | false | no | disabled) return 1 ;;
	esac
}

# The killswitch stays closed, unless nobody wants it any more. What netifd says in ERROR is how the
# daemon ended, if it did so by itself.
proto_simplevpn_teardown() {
	local interface=$1

	case $ERROR in
	'') rm -f "$RUN/$interface.crashed" ;;
	3) refuse "$interface" ;;
	*) remember_crash "$interface" ;;
	esac

	stays_closed "$interface" || "$PROGRAM" down "$interface" >/dev/null
	proto_kill_command "$interface" 15
	[ -e "$RUN/$interface.refused" ] || rm -f "$RUN/$interface.uci"
}

[ -n "$INCLUDE_ONLY" ] || {
	add_protocol simplevpn
}
