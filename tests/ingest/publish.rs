//! Publishing as `events publish` does.

use forge_dispatch::broker::{AmqpError, publish};
use forge_dispatch::domain::filter::EventType;
use secrecy::SecretString;

use super::rig::{Rig, settings};
use crate::harness::events::event;
use crate::harness::services;

fn archived() -> EventType {
    EventType::new("edition.archived").unwrap()
}

#[tokio::test]
async fn an_event_that_is_published_arrives() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let url = SecretString::from(services::amqp_url().await);
    let exchange = &rig.settings.events_exchange;
    publish(&url, exchange, event().text().as_bytes(), &archived())
        .await
        .unwrap();
    rig.until_stored(1).await;
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn an_event_that_no_queue_would_get_is_an_error() {
    let mut rig = Rig::new().await;
    rig.start().await;
    let url = SecretString::from(services::amqp_url().await);
    let exchange = &rig.settings.events_exchange;
    let unbound = EventType::new("invoice.paid").unwrap();
    let error = publish(&url, exchange, b"{}", &unbound).await.unwrap_err();
    assert!(matches!(error, AmqpError::Unroutable { .. }), "{error}");
    assert!(error.to_string().contains("invoice.paid"), "{error}");
    rig.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn an_exchange_that_is_not_there_is_an_error_and_is_not_made() {
    let url = services::amqp_url().await;
    let settings = settings(&url);
    let url = SecretString::from(url);
    for _ in 0..2 {
        let error = publish(&url, &settings.events_exchange, b"{}", &archived())
            .await
            .unwrap_err();
        assert!(
            matches!(&error, AmqpError::NoExchange(name) if *name == settings.events_exchange),
            "{error}"
        );
    }
}
