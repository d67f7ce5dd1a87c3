# Sourced by the set-up script: what the independent ESP peers need.

# Debian packages of the peers: the Linux kernel as a process, and what scapy's environment takes.
PEER_PACKAGES="user-mode-linux kmod iproute2 iputils-ping python3-venv"

# setup_scapy VENV: makes a Python environment with scapy in it, unless it is there.
setup_scapy() {
	if "$1/bin/python" -c 'import scapy.layers.ipsec' 2>/dev/null; then
		return 0
	fi
	/usr/bin/python3 -m venv --clear "$1" &&
		"$1/bin/pip" install --quiet --disable-pip-version-check \
			scapy==2.8.0 cryptography==50.0.2
}
