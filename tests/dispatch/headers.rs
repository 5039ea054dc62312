//! Headers of an admin's own on the way out.

use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::subscription::{SubscriptionSpec, TargetUrl};

use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::Receiver;
use crate::harness::simple::{all_become, event};

on_both_databases!(custom_headers_are_sent_and_ours_go_before_them);

async fn custom_headers_are_sent_and_ours_go_before_them(database: &TestDatabase) {
    let program = InProcess::start(settings(database.url())).await;
    let receiver = Receiver::ok();
    // As if a name had been allowed once that is ours by now.
    let headers = [
        ("authorization", "Bearer x y"),
        ("webhook-id", "forged"),
        ("content-type", "text/plain"),
        ("user-agent", "forged"),
        ("x-tenant", "7"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let new = registration(
        &WorkspaceId::default(),
        SubscriptionSpec {
            url: TargetUrl::new(&receiver.url("/hook")).unwrap(),
            headers: CustomHeaders::stored(headers),
            ..spec(&["*"])
        },
    );
    let id = register(&*program.store, &new).await.unwrap().id;
    program.entrance.publish(&[event("1")]).await.unwrap();
    all_become(&*program.store, id, 1, DeliveryState::Succeeded).await;

    let requests = receiver.received();
    let request = requests.first().unwrap();
    assert_eq!(request.header("authorization"), "Bearer x y");
    assert_eq!(request.header("x-tenant"), "7");
    request.verify(new.secret.expose()).unwrap();
    for name in ["webhook-id", "content-type", "user-agent"] {
        let values: Vec<_> = request.headers.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
    }
    assert!(request.webhook_id().starts_with("evt_"));
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.header("user-agent").starts_with("forge-dispatch/"));
    program.stop().await.unwrap();
}
