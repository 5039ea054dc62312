//! What the tests share.

pub(crate) mod receiver;
pub(crate) mod services;
