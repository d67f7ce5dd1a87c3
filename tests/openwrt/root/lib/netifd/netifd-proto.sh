#!/bin/sh
# A stand-in for netifd's /lib/netifd/netifd-proto.sh: the calls that our handler makes. Each becomes
# the message to netifd that the real one becomes.
# shellcheck shell=dash
# shellcheck disable=SC2034 # the handler sets and reads them

# shellcheck source=/dev/null
. "$IPKG_INSTROOT/usr/share/libubox/jshn.sh"

# init_proto PROTOCOL ACTION [INTERFACE OPTIONS [DEVICE]]
init_proto() {
	proto_action=$2 proto_interface=$3 proto_options=$4 proto_device=$5
}

add_protocol() {
	case $proto_action in
	dump) dump_protocol "$1" ;;
	*)
		json_load "$proto_options"
		"proto_$1_$proto_action" "$proto_interface" "$proto_device"
		;;
	esac
}

dump_protocol() {
	no_device=0 available=0 renew_handler=0 lasterror=0
	json_init
	json_add_string name "$1"
	json_add_array config
	"proto_$1_init_config"
	json_close_array
	json_add_boolean no-device "$no_device"
	json_add_boolean available "$available"
	json_add_boolean renew-handler "$renew_handler"
	json_add_boolean lasterror "$lasterror"
	json_dump
}

# An option and the number of its blobmsg type.
declare_option() {
	json_add_array ''
	json_add_string '' "$2"
	json_add_int '' "$1"
	json_close_array
}

proto_config_add_array() { declare_option 1 "$1"; }
proto_config_add_string() { declare_option 3 "$1"; }
proto_config_add_int() { declare_option 5 "$1"; }
proto_config_add_boolean() { declare_option 7 "$1"; }

begin() {
	json_init
	json_add_int action "$1"
}

words() {
	local word
	json_add_array "$1"
	shift
	for word; do json_add_string '' "$word"; done
	json_close_array
}

send() {
	json_add_string interface "$1"
	ubus call network.interface notify_proto "$(json_dump)"
}

proto_run_command() {
	local interface=$1
	shift
	begin 1
	words command "$@"
	send "$interface"
}

proto_kill_command() {
	begin 2
	[ -z "$2" ] || json_add_int signal "$2"
	send "$1"
}

proto_notify_error() {
	local interface=$1
	shift
	begin 3
	words error "$@"
	send "$interface"
}

proto_block_restart() {
	begin 4
	send "$1"
}

# The real one, too, leaves what was loaded as it is.
proto_add_host_dependency() (
	begin 6
	json_add_string host "$2"
	[ -z "$3" ] || json_add_string ifname "$3"
	send "$1"
)
