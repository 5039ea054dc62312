//! The check of a target URL when it is registered.
//!
//! It saves an admin from a subscription that could never be delivered. What protects the network
//! is the same check at every connection: a name may change its addresses at any time.

use std::sync::Arc;

use url::{Host, Url};

use super::client::WebhookClient;
use super::resolver::{ResolveError, Resolver};
use crate::domain::subscription::{FieldError, TargetUrl};

impl WebhookClient {
    /// Whether deliveries to this URL would be dialled.
    ///
    /// A name is refused when none of its addresses may be dialled, as it is at a connection. A
    /// name that does not resolve is accepted: the receiver may not be set up yet, or the name
    /// server be away.
    pub async fn check_target(&self, target: &TargetUrl) -> Result<(), FieldError> {
        let url = target.as_url();
        if url.scheme() == "http" && !self.allow_http {
            return Err(FieldError::new("url", "must be an https URL"));
        }
        let port = url.port_or_known_default().unwrap_or_default();
        self.check_literal(url, port).map_err(|blocked| {
            let special = blocked.special;
            FieldError::new(
                "url",
                format!(
                    "must lead to a public address; {} is {} ({})",
                    blocked.address, special.name, special.source
                ),
            )
        })?;
        self.check_name(url, port).await
    }

    async fn check_name(&self, url: &Url, port: u16) -> Result<(), FieldError> {
        let Some(Host::Domain(host)) = url.host() else {
            return Ok(());
        };
        let resolver = Resolver {
            lookup: Arc::clone(&self.lookup),
            guard: Arc::clone(&self.guard),
            class: self.guard.class(port),
            limit: self.lookup_limit,
        };
        match resolver.addresses(host).await {
            // Not which address: names of the inside are not to be read off by registering them.
            Err(ResolveError::Blocked(_)) => Err(FieldError::new(
                "url",
                "must lead to a public address; this host leads to one that is not",
            )),
            Err(error) => {
                tracing::debug!(host, %error, "a target was accepted whose name gives no address");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}
