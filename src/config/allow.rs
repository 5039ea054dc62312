//! An exception to the address guard: `CIDR`, or `CIDR:port` (`10.0.0.0/8`, `127.0.0.1/32:8080`,
//! `[fd00::/8]:8443`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Addresses, and perhaps one port, that may be dialled although they are special.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowRule {
    net: IpNet,
    port: Option<u16>,
}

impl AllowRule {
    /// Whether the rule covers this address and port.
    pub fn covers(&self, address: IpAddr, port: u16) -> bool {
        self.net.contains(&address) && self.port.is_none_or(|allowed| allowed == port)
    }

    /// The one port that the rule is for; `None` is all.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl FromStr for AllowRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "`{text}` is no `CIDR` or `CIDR:port` (10.0.0.0/8, 127.0.0.1/32:8080, [fd00::/8]:8443)"
            )
        };
        let (net, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (net, port) = rest.split_once("]:").ok_or_else(wrong)?;
                (net, Some(port))
            }
            None => match text.split_once('/') {
                // Only behind the prefix length can a colon mean a port: IPv6 is full of them.
                Some((_, length))
                    if length.contains(':') && !text[..text.len() - length.len()].contains(':') =>
                {
                    let (net, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                    (net, Some(port))
                }
                _ => (text, None),
            },
        };
        let net = net.parse::<IpNet>().map_err(|_| wrong())?;
        let port = match port {
            Some(port) => Some(port.parse::<u16>().map_err(|_| wrong())?),
            None => None,
        };
        Ok(Self {
            net: net.trunc(),
            port,
        })
    }
}

impl TryFrom<String> for AllowRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AllowRule> for String {
    fn from(rule: AllowRule) -> Self {
        rule.to_string()
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.net, self.port) {
            (net, None) => write!(f, "{net}"),
            (IpNet::V4(net), Some(port)) => write!(f, "{net}:{port}"),
            (IpNet::V6(net), Some(port)) => write!(f, "[{net}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for text in [
            "10.0.0.0/8",
            "127.0.0.1/32:8080",
            "fd00::/8",
            "[fd00::/8]:8443",
            "::1/128",
        ] {
            assert_eq!(text.parse::<AllowRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0.0/8:x",
            "10.0.0.0/8:70000",
            "[::1/128]",
            "host:80",
        ] {
            assert!(text.parse::<AllowRule>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_port_narrows_the_rule() {
        let rule: AllowRule = "127.0.0.0/8:8080".parse().unwrap();
        let address = "127.1.2.3".parse().unwrap();
        assert!(rule.covers(address, 8080) && !rule.covers(address, 8081));
        assert!(!rule.covers("128.0.0.1".parse().unwrap(), 8080));
    }
}
