//! Where the endpoints of these tests are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simplevpn_core::Offset;
use simplevpn_tests::sim::Setup;

/// `number` on the inner and the outer subnets: 10.0.0.x, fd00::x behind 192.0.2.x.
pub(crate) fn on_ipv4(number: u8) -> Setup {
    let tail = u16::from(number);
    Setup {
        v4: Ipv4Addr::new(10, 0, 0, number),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, tail),
        outer: Ipv4Addr::new(192, 0, 2, number).into(),
        mtu: 1438,
    }
}

/// The same behind 2001:db8::x.
pub(crate) fn on_ipv6(number: u8) -> Setup {
    let outer = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into());
    Setup { outer: outer.into(), mtu: 1418, ..on_ipv4(number) }
}

/// 0.0.1.0 and 0:0:0:1::.
pub(crate) fn shifted() -> Offset {
    Offset::new(0x100, 1 << 64)
}

/// The inner address of `setup` in either family, as one sees it who shifts it.
pub(crate) fn inner(setup: &Setup, v6: bool, offset: Offset) -> IpAddr {
    offset.to_host(if v6 { setup.v6.into() } else { setup.v4.into() })
}
