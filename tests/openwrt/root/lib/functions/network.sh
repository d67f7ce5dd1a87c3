#!/bin/sh
# A stand-in for OpenWrt's /lib/functions/network.sh: the one call that our handler makes.
# shellcheck shell=dash
# shellcheck disable=SC2034 # read through eval

# network_get_device VARIABLE INTERFACE: the device of an interface that is up.
network_get_device() {
	local status
	status=$(ubus call "network.interface.$2" status) || return
	eval "$1=\$(echo \"\$status\" | awk -F '\"' '\$2 == \"l3_device\" { print \$4 }'); [ -n \"\$$1\" ]"
}
