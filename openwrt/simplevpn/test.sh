#!/bin/sh
# Run by the continuous integration of the packages feed where the package was installed: $1 is the
# package's name, $2 its version.

[ "$1" = simplevpn ] || exit 0

simplevpn --version | grep -F "simplevpn $2" || exit 1

# A key pair can be made, and a configuration is judged.
simplevpn genkey | simplevpn pubkey | grep -E '^[0-9A-Za-z+/]{43}=$' || exit 1
config=$(mktemp)
cat >"$config" <<-END
	config interface 'vpn0'
		option proto 'simplevpn'

	config simplevpn_vpn0 'office'
		list allowed_ips '10.1.0.0/16'
		option keying 'manual'
		option cipher 'chacha20poly1305'
		option spi_in '0x1001'
		option spi_out '0x2001'
		option key_in '1$(printf '%071d' 0)'
		option key_out '2$(printf '%071d' 0)'
END
simplevpn check "$config" || exit 1
sed -i 's/allowed_ips/allowed_hosts/' "$config"
simplevpn check "$config" 2>&1 && exit 1
rm -f "$config"

# netifd learns of the protocol.
cd "$IPKG_INSTROOT/lib/netifd/proto" || exit 1
sh ./simplevpn.sh '' dump | grep -F '"simplevpn"'
