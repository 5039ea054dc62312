//! The addresses that are not the public internet, as a table.
//!
//! From the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), whole: the few rows
//! that count as globally reachable there are anycast services and sinks, where no receiver lives.
//! Beside them stand what other registries or documents set apart: multicast, class E, site-local,
//! ORCHID, the forms that carry an IPv4 address, and the addresses at which clouds hand out
//! credentials. Where ranges nest, the narrow one stands first, so that it gives the name.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// A range that may not be dialled, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// What it is, for people.
    pub name: &'static str,
    /// Who says so.
    pub source: &'static str,
}

/// The row of an IPv4 address, if it is special.
pub fn v4(address: Ipv4Addr) -> Option<Special> {
    V4.iter()
        .find(|(network, _)| network.contains(&address))
        .map(|(_, special)| *special)
}

/// The row of an IPv6 address, if it is special. It is judged as it stands: what it may carry
/// inside is the caller's business.
pub fn v6(address: Ipv6Addr) -> Option<Special> {
    if let Some((_, special)) = V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(*special);
    }
    if matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _]) {
        return Some(ISATAP);
    }
    (!GLOBAL_UNICAST.contains(&address)).then_some(UNALLOCATED)
}

const ISATAP: Special = Special {
    name: "ISATAP, which carries an IPv4 address",
    source: "RFC 5214",
};

const UNALLOCATED: Special = Special {
    name: "outside the global unicast range",
    source: "IANA IPv6 address space",
};

const GLOBAL_UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

const fn row4(
    address: [u8; 4],
    length: u8,
    name: &'static str,
    source: &'static str,
) -> (Ipv4Net, Special) {
    let [a, b, c, d] = address;
    let network = Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length);
    (network, Special { name, source })
}

#[expect(
    clippy::many_single_char_names,
    reason = "the eight groups have no names"
)]
const fn row6(
    address: [u16; 8],
    length: u8,
    name: &'static str,
    source: &'static str,
) -> (Ipv6Net, Special) {
    let [a, b, c, d, e, f, g, h] = address;
    let network = Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length);
    (network, Special { name, source })
}

/// IPv4.
#[rustfmt::skip]
pub(super) const V4: &[(Ipv4Net, Special)] = &[
    row4([169, 254, 169, 254], 32, "cloud metadata",                  "AWS, Azure, Google Cloud and others"),
    row4([169, 254, 170, 2],   32, "cloud metadata",                  "AWS ECS"),
    row4([100, 100, 100, 200], 32, "cloud metadata",                  "Alibaba Cloud"),
    row4([192, 0, 0, 192],     32, "cloud metadata",                  "Oracle Cloud"),
    row4([168, 63, 129, 16],   32, "a cloud platform's own address",  "Azure"),
    row4([0, 0, 0, 0],         32, "unspecified",                     "RFC 1122 §3.2.1.3"),
    row4([0, 0, 0, 0],          8, "this network",                    "RFC 791 §3.2"),
    row4([10, 0, 0, 0],         8, "private",                         "RFC 1918"),
    row4([100, 64, 0, 0],      10, "shared address space",            "RFC 6598"),
    row4([127, 0, 0, 0],        8, "loopback",                        "RFC 1122 §3.2.1.3"),
    row4([169, 254, 0, 0],     16, "link-local",                      "RFC 3927"),
    row4([172, 16, 0, 0],      12, "private",                         "RFC 1918"),
    row4([192, 0, 0, 0],       29, "IPv4 service continuity",         "RFC 7335"),
    row4([192, 0, 0, 8],       32, "IPv4 dummy address",              "RFC 7600"),
    row4([192, 0, 0, 9],       32, "port control protocol anycast",   "RFC 7723"),
    row4([192, 0, 0, 10],      32, "TURN anycast",                    "RFC 8155"),
    row4([192, 0, 0, 170],     31, "NAT64/DNS64 discovery",           "RFC 8880, RFC 7050"),
    row4([192, 0, 0, 0],       24, "IETF protocol assignments",       "RFC 6890"),
    row4([192, 0, 2, 0],       24, "documentation",                   "RFC 5737"),
    row4([192, 31, 196, 0],    24, "AS112",                           "RFC 7535"),
    row4([192, 52, 193, 0],    24, "automatic multicast tunneling",   "RFC 7450"),
    row4([192, 88, 99, 2],     32, "6a44 relay anycast",              "RFC 6751"),
    row4([192, 88, 99, 0],     24, "6to4 relay anycast (deprecated)", "RFC 7526"),
    row4([192, 168, 0, 0],     16, "private",                         "RFC 1918"),
    row4([192, 175, 48, 0],    24, "AS112",                           "RFC 7534"),
    row4([198, 18, 0, 0],      15, "benchmarking",                    "RFC 2544"),
    row4([198, 51, 100, 0],    24, "documentation",                   "RFC 5737"),
    row4([203, 0, 113, 0],     24, "documentation",                   "RFC 5737"),
    row4([224, 0, 0, 0],        4, "multicast",                       "RFC 5771"),
    row4([255, 255, 255, 255], 32, "broadcast",                       "RFC 919, RFC 8190"),
    row4([240, 0, 0, 0],        4, "reserved (class E)",              "RFC 1112 §4"),
];

/// IPv6. What lies outside `2000::/3` would be refused without a row too; rows give it its name.
#[rustfmt::skip]
pub(super) const V6: &[(Ipv6Net, Special)] = &[
    row6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254],     128, "cloud metadata",                  "AWS"),
    row6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254],      128, "cloud metadata",                  "Google Cloud"),
    row6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, "cloud metadata",                 "Oracle Cloud"),
    row6([0, 0, 0, 0, 0, 0, 0, 1],                  128, "loopback",                        "RFC 4291 §2.5.3"),
    row6([0, 0, 0, 0, 0, 0, 0, 0],                  128, "unspecified",                     "RFC 4291 §2.5.2"),
    row6([0, 0, 0, 0, 0, 0, 0, 0],                   96, "IPv4-compatible (deprecated)",    "RFC 4291 §2.5.5.1"),
    row6([0, 0, 0, 0, 0, 0xffff, 0, 0],              96, "IPv4-mapped",                     "RFC 4291 §2.5.5.2"),
    row6([0, 0, 0, 0, 0xffff, 0, 0, 0],              96, "IPv4-translated (deprecated)",    "RFC 2765 §2.1"),
    row6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0],           96, "NAT64",                           "RFC 6052"),
    row6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0],           48, "local NAT64",                     "RFC 8215"),
    row6([0x100, 0, 0, 0, 0, 0, 0, 0],               64, "discard-only",                    "RFC 6666"),
    row6([0x100, 0, 0, 1, 0, 0, 0, 0],               64, "dummy prefix",                    "RFC 9780"),
    row6([0x2001, 0, 0, 0, 0, 0, 0, 0],              32, "Teredo, which carries an IPv4 address", "RFC 4380"),
    row6([0x2001, 1, 0, 0, 0, 0, 0, 1],             128, "port control protocol anycast",   "RFC 7723"),
    row6([0x2001, 1, 0, 0, 0, 0, 0, 2],             128, "TURN anycast",                    "RFC 8155"),
    row6([0x2001, 1, 0, 0, 0, 0, 0, 3],             128, "service registration anycast",    "RFC 9665"),
    row6([0x2001, 2, 0, 0, 0, 0, 0, 0],              48, "benchmarking",                    "RFC 5180"),
    row6([0x2001, 3, 0, 0, 0, 0, 0, 0],              32, "automatic multicast tunneling",   "RFC 7450"),
    row6([0x2001, 4, 0x112, 0, 0, 0, 0, 0],          48, "AS112",                           "RFC 7535"),
    row6([0x2001, 0x10, 0, 0, 0, 0, 0, 0],           28, "ORCHID (deprecated)",             "RFC 4843"),
    row6([0x2001, 0x20, 0, 0, 0, 0, 0, 0],           28, "ORCHIDv2",                        "RFC 7343"),
    row6([0x2001, 0x30, 0, 0, 0, 0, 0, 0],           28, "drone remote identification",     "RFC 9374"),
    row6([0x2001, 0, 0, 0, 0, 0, 0, 0],              23, "IETF protocol assignments",       "RFC 2928"),
    row6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0],          32, "documentation",                   "RFC 3849"),
    row6([0x2002, 0, 0, 0, 0, 0, 0, 0],              16, "6to4, which carries an IPv4 address", "RFC 3056, RFC 7526"),
    row6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0],      48, "AS112",                           "RFC 7534"),
    row6([0x3ffe, 0, 0, 0, 0, 0, 0, 0],              16, "6bone (returned)",                "RFC 3701"),
    row6([0x3fff, 0, 0, 0, 0, 0, 0, 0],              20, "documentation",                   "RFC 9637"),
    row6([0x5f00, 0, 0, 0, 0, 0, 0, 0],              16, "segment routing identifiers",     "RFC 9602"),
    row6([0xfc00, 0, 0, 0, 0, 0, 0, 0],               7, "unique local",                    "RFC 4193"),
    row6([0xfe80, 0, 0, 0, 0, 0, 0, 0],              10, "link-local",                      "RFC 4291 §2.5.6"),
    row6([0xfec0, 0, 0, 0, 0, 0, 0, 0],              10, "site-local (deprecated)",         "RFC 3879"),
    row6([0xff00, 0, 0, 0, 0, 0, 0, 0],               8, "multicast",                       "RFC 4291 §2.7"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The registries as IANA prints them, and what this module adds; written down a second time
    /// so that a slip in the table does not go unnoticed.
    const REFUSED_V4: &[&str] = &[
        "0.0.0.0/8",
        "0.0.0.0/32",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.0.0/29",
        "192.0.0.8/32",
        "192.0.0.9/32",
        "192.0.0.10/32",
        "192.0.0.170/32",
        "192.0.0.171/32",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.88.99.2/32",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "255.255.255.255/32",
        // Not in the registry.
        "168.63.129.16/32",
        "224.0.0.0/4",
    ];

    const REFUSED_V6: &[&str] = &[
        "::1/128",
        "::/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",
        "2001::/32",
        "2001:1::1/128",
        "2001:1::2/128",
        "2001:1::3/128",
        "2001:2::/48",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:10::/28",
        "2001:20::/28",
        "2001:30::/28",
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        // Not in the registry.
        "::/96",
        "::ffff:0:0:0/96",
        "3ffe::/16",
        "fec0::/10",
        "ff00::/8",
        // All that is not 2000::/3.
        "::/3",
        "4000::/2",
        "8000::/1",
    ];

    #[test]
    fn every_ipv4_range_is_special_from_its_first_address_to_its_last_and_not_beyond() {
        let ranges: Vec<Ipv4Net> = REFUSED_V4
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for range in &ranges {
            assert!(v4(range.network()).is_some(), "first of {range}");
            assert!(v4(range.broadcast()).is_some(), "last of {range}");
        }
        for range in Ipv4Net::aggregate(&ranges) {
            let before = u32::from(range.network()).checked_sub(1);
            let after = u32::from(range.broadcast()).checked_add(1);
            for outside in [before, after].into_iter().flatten().map(Ipv4Addr::from) {
                let refused = ranges.iter().any(|range| range.contains(&outside));
                assert_eq!(v4(outside).is_some(), refused, "{outside} beside {range}");
            }
        }
    }

    #[test]
    fn every_ipv6_range_is_special_from_its_first_address_to_its_last_and_not_beyond() {
        let ranges: Vec<Ipv6Net> = REFUSED_V6
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for range in &ranges {
            assert!(v6(range.network()).is_some(), "first of {range}");
            assert!(v6(range.broadcast()).is_some(), "last of {range}");
        }
        for range in Ipv6Net::aggregate(&ranges) {
            let before = u128::from(range.network()).checked_sub(1);
            let after = u128::from(range.broadcast()).checked_add(1);
            for outside in [before, after].into_iter().flatten().map(Ipv6Addr::from) {
                let refused = ranges.iter().any(|range| range.contains(&outside));
                assert_eq!(v6(outside).is_some(), refused, "{outside} beside {range}");
            }
        }
    }

    #[test]
    fn the_table_holds_nothing_but_those_ranges() {
        let v4s = REFUSED_V4.iter().map(|text| text.parse().unwrap());
        let allowed: Vec<Ipv4Net> = Ipv4Net::aggregate(&v4s.collect());
        for (network, special) in V4 {
            assert!(
                allowed.iter().any(|range| range.contains(network)),
                "{network} {special:?}"
            );
        }
        let v6s = REFUSED_V6.iter().map(|text| text.parse().unwrap());
        let allowed: Vec<Ipv6Net> = Ipv6Net::aggregate(&v6s.collect());
        for (network, special) in V6 {
            assert!(
                allowed.iter().any(|range| range.contains(network)),
                "{network} {special:?}"
            );
        }
    }

    #[test]
    fn the_narrowest_range_gives_the_name() {
        for (index, (network, _)) in V4.iter().enumerate() {
            for (earlier, _) in &V4[..index] {
                assert!(!earlier.contains(network), "{network} can never be named");
            }
        }
        for (index, (network, _)) in V6.iter().enumerate() {
            for (earlier, _) in &V6[..index] {
                assert!(!earlier.contains(network), "{network} can never be named");
            }
        }
    }

    #[test]
    fn public_addresses_are_not_special() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.215.14",
            "223.255.255.255",
            "100.63.255.255",
        ] {
            assert_eq!(v4(address.parse().unwrap()), None, "{address}");
        }
        for address in [
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450:4001:80b::200e",
            "2001:200::1",
            "2400:cb00:2048:1::c629:d7a2",
        ] {
            assert_eq!(v6(address.parse().unwrap()), None, "{address}");
        }
    }

    #[test]
    fn isatap_interfaces_are_special_under_any_prefix() {
        for address in [
            "2400:cb00::5efe:10.0.0.1",
            "2400:cb00::200:5efe:8.8.8.8",
            "fe80::5efe:1.2.3.4",
        ] {
            assert!(v6(address.parse().unwrap()).is_some(), "{address}");
        }
        assert!(v6("2400:cb00::5eff:1".parse().unwrap()).is_none());
    }
}
