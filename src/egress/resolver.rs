//! Names to addresses that may be dialled.
//!
//! The client asks once for every connection it opens and dials only what it is given, so the
//! address that was checked is the address that is dialled: a name that changes its mind between
//! two looks (DNS rebinding) is judged by the look that counts.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Blocked, Guard, PortClass};
use super::lookup::Lookup;

/// The most addresses of one name that are considered: the connect deadline is shared out among
/// them, and a name's owner should not be able to make that share nothing.
const MAX_ADDRESSES: usize = 16;

/// Why a name gave no address to dial.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such name, or the name server gave an error.
    #[error("the name does not resolve")]
    Failed(#[source] io::Error),
    /// The name has no address.
    #[error("the name has no address")]
    Empty,
    /// The name server did not answer in time.
    #[error("the name did not resolve within {0:?}")]
    TimedOut(Duration),
    /// The name has addresses, and none may be dialled. The first one says why.
    #[error("{0}")]
    Blocked(Blocked),
}

/// Resolves names for connections to the ports of one class.
///
/// reqwest tells a resolver the name and not the port, and a rule may open an address for one port
/// only. So each class has its own resolver and client; [`super::client`] chooses by the URL.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) guard: Arc<Guard>,
    pub(super) class: PortClass,
    /// How long one name may take.
    pub(super) limit: Duration,
}

impl Resolver {
    /// The addresses of a name that may be dialled; at least one.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let found = tokio::time::timeout(self.limit, self.lookup.lookup(host))
            .await
            .map_err(|_| ResolveError::TimedOut(self.limit))?
            .map_err(ResolveError::Failed)?;
        let mut blocked = None;
        let mut allowed = Vec::with_capacity(found.len().min(MAX_ADDRESSES));
        for address in found {
            // As it is dialled: what was judged is what is handed on.
            let address = address.to_canonical();
            match self.guard.judge(address, self.class) {
                Ok(()) if allowed.len() < MAX_ADDRESSES => allowed.push(address),
                Ok(()) => break,
                Err(error) => blocked = blocked.or(Some(error)),
            }
        }
        match blocked {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(blocked) => Err(ResolveError::Blocked(blocked)),
            None => Err(ResolveError::Empty),
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let addresses = resolver.addresses(name.as_str()).await?;
            // Port 0 stands for the port of the URL.
            let sockets = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}
