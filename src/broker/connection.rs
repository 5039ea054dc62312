//! Connecting: the one place that reads the broker's URL, so that its password gets no further.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use super::error::AmqpError;

/// For the whole of connecting: TCP, TLS and the AMQP handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that is gone without a word is noticed after twice this, in seconds.
const HEARTBEAT_SECS: u16 = 15;

/// The largest frame. lapin keeps 64 of them for each connection, all of it in memory from the start: with
/// the broker's own 128 KiB, 25 MB for the three connections of a process in which nothing happens. Larger
/// messages come in several.
const FRAME_MAX_BYTES: u32 = 32 * 1024;

/// Connects, under a name that the broker's operators see.
///
/// lapin's own recovery stays off: it knows nothing of our watermark, and revives neither a
/// channel that was closed alone nor a consumer that was cancelled. `run` rebuilds everything.
pub(crate) async fn connect(url: &SecretString, name: &str) -> Result<Connection, AmqpError> {
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(|_| AmqpError::BadUrl)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    uri.query.frame_max.get_or_insert(FRAME_MAX_BYTES);
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connection = Connection::connect_uri(uri, properties);
    match tokio::time::timeout(CONNECT_TIMEOUT, connection).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(AmqpError::Silent(CONNECT_TIMEOUT)),
    }
}

/// A connection that is closed when this is dropped, whatever ended its user in between. lapin
/// closes a connection that nobody holds any more, except where a request was under way: a
/// subscription whose answer nobody waits for lives on, and takes messages for ever.
pub(crate) struct Line(Arc<Connection>);

impl Line {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(Arc::new(connection))
    }

    /// The connection, for a part of the same session.
    pub(crate) fn share(&self) -> Arc<Connection> {
        Arc::clone(&self.0)
    }
}

impl Deref for Line {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and its sockets with it.
        if let Ok(runtime) = Handle::try_current() {
            let connection = self.share();
            runtime.spawn(async move { close(&connection).await });
        }
    }
}

/// How long a farewell may take: nothing depends on it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Says goodbye. A broker that does not answer finds the connection gone.
pub(crate) async fn close(connection: &Connection) {
    if !connection.status().connected() {
        return;
    }
    let farewell = connection.close(200, "bye".into());
    match tokio::time::timeout(CLOSE_TIMEOUT, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "broker: the connection was gone already"),
        Err(_) => tracing::debug!("broker: no answer to the farewell"),
    }
}

/// A name as AMQP carries it.
pub(crate) fn short(name: &str) -> Result<ShortString, AmqpError> {
    ShortString::try_new(name).map_err(|_| AmqpError::NameTooLong(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unusable_url_is_told_without_its_password() {
        for url in [
            "amqp:hunter2",
            "http://u:hunter2@host",
            "amqp://u:hunter2@host:x/",
        ] {
            let error = connect(&SecretString::from(url), "test").await.unwrap_err();
            assert!(matches!(error, AmqpError::BadUrl), "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
