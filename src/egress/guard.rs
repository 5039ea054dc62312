//! Which addresses may be dialled: a pure function over addresses (product.md §4, targets).
//!
//! Two questions, in this order:
//! 1. Does an operator's rule open the address? It is asked of the address *as it is dialled*. An
//!    IPv4-mapped address is dialled as the IPv4 address inside (RFC 4038 §4.2), so `127.0.0.0/8`
//!    opens `::ffff:127.0.0.1` too, and a rule written over `::ffff:0:0/96` opens nothing. All
//!    other forms that carry an IPv4 address go out as IPv6, through a translator or tunnel that
//!    has networks of its own behind it: a rule for what is inside does not open them, a rule for
//!    the IPv6 form does.
//! 2. Is the address [special]? Behind the well-known NAT64 prefix the IPv4 address inside decides,
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
