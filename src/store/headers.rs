//! Custom headers at rest: sealed whole, since any of their values may be a credential.

use super::vault::Vault;
use super::{Result, StoreError};
use crate::domain::headers::CustomHeaders;
use crate::domain::ids::SubscriptionId;

/// What the column `headers` holds; nothing where there are none.
pub(super) fn seal(
    vault: &Vault,
    id: SubscriptionId,
    headers: &CustomHeaders,
) -> Result<Option<Vec<u8>>> {
    if headers.is_empty() {
        return Ok(None);
    }
    let pairs: Vec<(&str, &str)> = headers.iter().collect();
    let text = serde_json::to_vec(&pairs).map_err(StoreError::corrupt)?;
    vault.seal(&context(id), &text).map(Some)
}

/// What the column comes to.
pub(super) fn open(
    vault: &Vault,
    id: SubscriptionId,
    sealed: Option<&[u8]>,
) -> Result<CustomHeaders> {
    let Some(sealed) = sealed else {
        return Ok(CustomHeaders::default());
    };
    let text = vault.open(&context(id), sealed)?;
    // The parser's own words might repeat what it read.
    let pairs: Vec<(String, String)> = serde_json::from_slice(&text)
        .map_err(|_| StoreError::Corrupt(format!("subscription.headers of {id}")))?;
    Ok(CustomHeaders::stored(pairs))
}

/// What they are sealed for: their own row and no other.
fn context(id: SubscriptionId) -> String {
    format!("subscription_headers/{id}")
}
