//! Whom an address stands for.

use std::net::{IpAddr, Ipv6Addr};

/// What one customer is given: an address, or a /64 of IPv6.
pub(super) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}
