//! Which addresses may be dialled: a pure function over addresses (product.md §4, targets).
//!
//! Two questions, in this order:
//! 1. Does an operator's rule open the address? It is asked of the address *as it is dialled*. An
//!    IPv4-mapped address is dialled as the IPv4 address inside (RFC 4038 §4.2), so `127.0.0.0/8`
//!    opens `::ffff:127.0.0.1` too, and a rule written over `::ffff:0:0/96` opens nothing. All
//!    other forms that carry an IPv4 address go out as IPv6, through a translator or tunnel that
//!    has networks of its own behind it: a rule for what is inside does not open them, a rule for
//!    the IPv6 form does.
//! 2. Is the address in the table of [`super::special`]? Behind the well-known NAT64 prefix the IPv4 address inside decides,
//!    since networks without IPv4 reach the public one that way (RFC 6052); 6to4, Teredo, ISATAP
//!    and the other forms are refused whatever they carry.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::special::{self, Special};
use crate::config::{self, AllowRule};

/// Judges addresses.
#[derive(Clone, Debug)]
pub struct Guard {
    rules: Vec<AllowRule>,
}

/// An address that may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} may not be dialled: it is {} ({})", special.name, special.source)]
pub struct Blocked {
    /// The address as it was given.
    pub address: IpAddr,
    /// The range that forbids it.
    pub special: Special,
}

/// A port as far as the rules tell ports apart: one that a rule names, or any other. Finitely
/// many, and nearly always one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PortClass {
    /// No rule names it.
    Unnamed,
    /// A rule names it.
    Named(u16),
}

impl Guard {
    /// A guard with an operator's exceptions.
    pub fn new(config: &config::Egress) -> Self {
        Self {
            rules: config.allow.clone(),
        }
    }

    /// Whether this address may be dialled on this port.
    pub fn check(&self, address: IpAddr, port: u16) -> Result<(), Blocked> {
        self.judge(address, self.class(port))
    }

    /// The class of a port.
    pub(super) fn class(&self, port: u16) -> PortClass {
        if self.rules.iter().any(|rule| rule.port() == Some(port)) {
            PortClass::Named(port)
        } else {
            PortClass::Unnamed
        }
    }

    /// All classes.
    pub(super) fn classes(&self) -> BTreeSet<PortClass> {
        self.rules
            .iter()
            .filter_map(|rule| rule.port().map(PortClass::Named))
            .chain([PortClass::Unnamed])
            .collect()
    }

    /// Whether this address may be dialled on the ports of this class.
    pub(super) fn judge(&self, address: IpAddr, class: PortClass) -> Result<(), Blocked> {
        let dialled = address.to_canonical();
        if self.rules.iter().any(|rule| opens(rule, dialled, class)) {
            return Ok(());
        }
        match special(dialled) {
            None => Ok(()),
            Some(special) => Err(Blocked { address, special }),
        }
    }
}

fn opens(rule: &AllowRule, address: IpAddr, class: PortClass) -> bool {
    match class {
        PortClass::Named(port) => rule.covers(address, port),
        PortClass::Unnamed => rule.port().is_none() && rule.covers(address, 0),
    }
}

fn special(dialled: IpAddr) -> Option<Special> {
    match dialled {
        IpAddr::V4(address) => special::v4(address),
        IpAddr::V6(address) => match address.segments() {
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                special::v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
            }
            _ => special::v6(address),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn guard(rules: &[&str]) -> Guard {
        Guard::new(&config::Egress {
            allow: rules.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..config::Egress::default()
        })
    }

    fn allows(rules: &[&str], address: &str, port: u16) -> bool {
        guard(rules).check(address.parse().unwrap(), port).is_ok()
    }

    #[test]
    fn without_rules_only_public_addresses_may_be_dialled() {
        assert!(allows(&[], "8.8.8.8", 443));
        assert!(allows(&[], "2606:4700::1111", 8443));
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(!allows(&[], address, 443), "{address}");
        }
    }

    #[test]
    fn a_rule_opens_its_range_and_nothing_else() {
        let rules = &["10.1.0.0/16", "fd00:1::/32"];
        assert!(allows(rules, "10.1.255.255", 1) && !allows(rules, "10.2.0.0", 1));
        assert!(allows(rules, "fd00:1::9", 1) && !allows(rules, "fd00:2::", 1));
    }

    #[test]
    fn a_rule_with_a_port_opens_that_port_only() {
        let rules = &["127.0.0.1/32:8080", "127.0.0.1/32:8081", "10.0.0.0/8"];
        for (port, open) in [(8080, true), (8081, true), (8082, false), (0, false)] {
            assert_eq!(allows(rules, "127.0.0.1", port), open, "{port}");
            assert!(allows(rules, "10.0.0.1", port));
            assert!(allows(rules, "8.8.8.8", port));
        }
    }

    #[test]
    fn the_port_that_a_rule_leaves_out_is_not_port_zero() {
        assert!(!allows(&["127.0.0.1/32:0"], "127.0.0.1", 443));
        assert!(allows(&["127.0.0.1/32:0"], "127.0.0.1", 0));
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_address_inside() {
        assert!(!allows(&[], "::ffff:127.0.0.1", 80));
        assert!(allows(&[], "::ffff:8.8.8.8", 80));
        assert!(allows(&["127.0.0.0/8"], "::ffff:127.0.0.1", 80));
        assert!(!allows(&["127.0.0.0/8:81"], "::ffff:127.0.0.1", 80));
        // Nothing is dialled in this form.
        assert!(!allows(&["::ffff:0:0/96", "::/0"], "::ffff:127.0.0.1", 80));
    }

    #[test]
    fn behind_nat64_the_address_inside_decides_and_rules_open_the_outside_only() {
        assert!(allows(&[], "64:ff9b::8.8.8.8", 443));
        for inside in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "168.63.129.16"] {
            let address = format!("64:ff9b::{inside}");
            assert!(!allows(&[], &address, 443), "{address}");
            assert!(!allows(&["0.0.0.0/0"], &address, 443), "{address}");
            assert!(allows(&["64:ff9b::/96"], &address, 443), "{address}");
        }
        // Here the place of the address inside is not known.
        assert!(!allows(&[], "64:ff9b:1::8.8.8.8", 443));
    }

    #[test]
    fn tunnels_are_refused_whatever_they_carry() {
        for address in [
            "2002:808:808::1",
            "2002:7f00:1::",
            "2001:0:808:808::f7f7:f7f7",
            "2400:cb00::5efe:8.8.8.8",
            "::8.8.8.8",
            "::ffff:0:8.8.8.8",
        ] {
            assert!(!allows(&["0.0.0.0/0"], address, 443), "{address}");
            assert!(allows(&["::/0"], address, 443), "{address}");
        }
    }

    #[test]
    fn the_refusal_names_the_range() {
        let blocked = guard(&[])
            .check("10.0.0.1".parse().unwrap(), 1)
            .unwrap_err();
        assert_eq!(
            blocked.to_string(),
            "10.0.0.1 may not be dialled: it is private (RFC 1918)"
        );
    }

    proptest! {
        #[test]
        fn mapped_and_nat64_forms_agree_with_the_address_inside(bits: u32, port: u16) {
            let v4 = Ipv4Addr::from(bits);
            let guard = guard(&[]);
            let plain = guard.check(v4.into(), port).is_ok();
            let nat64 = Ipv6Addr::from((0x64_ff9b_u128 << 96) | u128::from(bits));
            prop_assert_eq!(plain, guard.check(v4.to_ipv6_mapped().into(), port).is_ok());
            prop_assert_eq!(plain, guard.check(nat64.into(), port).is_ok());
        }

        #[test]
        fn what_the_standard_library_calls_special_is_refused(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let special = v4.is_private() || v4.is_loopback() || v4.is_link_local()
                || v4.is_multicast() || v4.is_broadcast() || v4.is_documentation()
                || v4.is_unspecified();
            prop_assert!(!special || guard(&[]).check(v4.into(), 443).is_err());
        }

        #[test]
        fn outside_global_unicast_only_nat64_passes(bits: u128) {
            let v6 = Ipv6Addr::from(bits);
            let global = bits >> 125 == 1;
            let carries_v4 = v6.to_ipv4_mapped().is_some() || bits >> 32 == 0x64_ff9b << 64;
            prop_assert!(global || carries_v4 || guard(&[]).check(v6.into(), 443).is_err());
        }

        #[test]
        fn a_rule_for_everything_opens_everything(bits: u128, v4: u32, port: u16) {
            let guard = guard(&["0.0.0.0/0", "::/0"]);
            prop_assert!(guard.check(Ipv6Addr::from(bits).into(), port).is_ok());
            prop_assert!(guard.check(Ipv4Addr::from(v4).into(), port).is_ok());
        }
    }
}
