//! Where requests come in.

/// The client's address, in the extensions of every request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub std::net::IpAddr);
