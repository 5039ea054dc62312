//! What trusted proxies say of the client, and whom we believe.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The proxies whose word counts.
pub(super) struct Trusted(Vec<IpNet>);

impl Trusted {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        Self(nets.to_vec())
    }

    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address))
    }

    /// The client's address, as far as trusted proxies vouch for it: what stands left of an address
    /// that is not theirs may be anybody's invention. If all are theirs, the request began at the
    /// left-most. What is no address ends the search, and the proxy itself stands for its client.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        for line in headers.get_all(FORWARDED_FOR).iter().rev() {
            let Ok(line) = line.to_str() else {
                return peer;
            };
            for text in line.rsplit(',') {
                let Some(address) = address(text.trim()) else {
                    return peer;
                };
                if !self.covers(address) {
                    return address;
                }
                client = address;
            }
        }
        client
    }
}

/// Whether the proxies took the request over https: all of them, where several say so.
pub(super) fn is_https(headers: &HeaderMap) -> bool {
    let mut said = headers.get_all(FORWARDED_PROTO).iter().peekable();
    said.peek().is_some()
        && said.all(|line| {
            line.to_str().is_ok_and(|line| {
                line.split(',')
                    .all(|proto| proto.trim().eq_ignore_ascii_case("https"))
            })
        })
}

/// An address, with or without a port: some proxies name it too.
fn address(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse().map(|socket: std::net::SocketAddr| socket.ip()))
        .or_else(|_| text.trim_start_matches('[').trim_end_matches(']').parse())
        .ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_proxy() {
        let trusted = Trusted::new(&["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.9.9.9"], "203.0.113.7"),
            (
                &["6.6.6.6", "203.0.113.7 ,10.9.9.9", "fd00::9"],
                "203.0.113.7",
            ),
            (&["nonsense, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, nonsense"], "10.0.0.1"),
            (&["203.0.113.7,"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["203.0.113.7", "\u{e4}"], "10.0.0.1"),
            (&["203.0.113.7:5000"], "203.0.113.7"),
            (&["[2001:db8::1]:5000"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&["6.6.6.6, ::ffff:10.1.1.1, 10.2.2.2"], "6.6.6.6"),
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ] {
            let client =
                trusted.client("10.0.0.1".parse().unwrap(), &headers(FORWARDED_FOR, lines));
            assert_eq!(client.to_string(), expected, "{lines:?}");
        }
    }

    #[test]
    fn https_is_what_all_proxies_say() {
        for (lines, expected) in [
            (&[][..], false),
            (&["https"], true),
            (&["HTTPS"], true),
            (&["https, https"], true),
            (&["https", "https"], true),
            (&["http"], false),
            (&["https, http"], false),
            (&["http", "https"], false),
            (&[""], false),
            (&["wss"], false),
        ] {
            assert_eq!(
                is_https(&headers(FORWARDED_PROTO, lines)),
                expected,
                "{lines:?}"
            );
        }
    }
}
