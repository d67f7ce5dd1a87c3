#!/bin/sh
# A stand-in for OpenWrt's /lib/functions.sh: the calls that our scripts make, on the real `uci`.
# shellcheck shell=dash
# shellcheck disable=SC2034 # read through eval

CONFIG_SECTIONS=

# Defines CONFIG_SECTION_OPTION for each option; values of a list are separated by spaces.
config_load() {
	CONFIG_SECTIONS=
	eval "$(uci -n export "$1")"
}

# What `uci export` prints are calls of these.
package() { :; }

config() {
	CONFIG_SECTION=$2
	CONFIG_SECTIONS="$CONFIG_SECTIONS $2"
	eval "CONFIG_${CONFIG_SECTION}_TYPE=\$1"
}

option() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\$2"
}

list() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\"\${CONFIG_${CONFIG_SECTION}_$1:+\$CONFIG_${CONFIG_SECTION}_$1 }\$2\""
}

# config_get VARIABLE SECTION OPTION [DEFAULT]
config_get() {
	eval "$1=\"\${CONFIG_$2_$3:-\$4}\""
}

config_get_bool() {
	config_get "$@"
	eval "set -- \"$1\" \"\$$1\""
	case $2 in
	1 | on | true | yes | enabled) eval "$1=1" ;;
	*) eval "$1=0" ;;
	esac
}

# config_foreach FUNCTION TYPE [ARGUMENT…]
config_foreach() {
	local function=$1 wanted=$2 section kind
	shift 2
	for section in $CONFIG_SECTIONS; do
		config_get kind "$section" TYPE
		[ "$kind" != "$wanted" ] || "$function" "$section" "$@"
	done
}

append() {
	eval "$1=\"\${$1:+\$$1 }\$2\""
}

list_contains() {
	eval "case \" \$$1 \" in *\" \$2 \"*) ;; *) false ;; esac"
}
