//! The check at registration.

use std::sync::Arc;

use forge_dispatch::config::Egress;
use forge_dispatch::domain::subscription::{FieldError, TargetUrl};

use super::{Names, allowing, client};

async fn check(allow: &[&str], url: &str) -> Result<(), FieldError> {
    let names = Names::default()
        .with("public.example", &[&["93.184.215.14", "2606:4700::1111"]])
        .with("inside.example", &[&["10.11.12.13"]])
        .with("both.example", &[&["10.11.12.13", "93.184.215.14"]])
        .with("empty.example", &[&[]]);
    let target = TargetUrl::new(url)?;
    client(&allowing(allow), &Arc::new(names))
        .check_target(&target)
        .await
}

#[tokio::test]
async fn public_targets_are_taken() {
    for url in [
        "https://public.example/hook",
        "https://public.example:8443/hook",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://both.example/",
    ] {
        assert_eq!(check(&[], url).await, Ok(()), "{url}");
    }
}

#[tokio::test]
async fn a_special_address_is_refused_by_the_name_of_its_range() {
    for (url, reason) in [
        (
            "https://127.1/",
            "must lead to a public address; 127.0.0.1 is loopback (RFC 1122 §3.2.1.3)",
        ),
        (
            "https://[fd00::1]/",
            "must lead to a public address; fd00::1 is unique local (RFC 4193)",
        ),
        (
            "https://169.254.169.254/",
            "must lead to a public address; 169.254.169.254 is cloud metadata (AWS, Azure, Google Cloud and others)",
        ),
    ] {
        assert_eq!(check(&[], url).await, Err(FieldError::new("url", reason)));
    }
}

#[tokio::test]
async fn a_private_name_is_refused_without_telling_its_address() {
    let error = check(&[], "https://inside.example/").await.unwrap_err();
    assert_eq!(error.field, "url");
    assert_eq!(
        error.reason,
        "must lead to a public address; this host leads to one that is not"
    );
}

#[tokio::test]
async fn a_name_that_does_not_resolve_now_is_taken() {
    assert_eq!(check(&[], "https://later.example/").await, Ok(()));
    assert_eq!(check(&[], "https://empty.example/").await, Ok(()));
}

#[tokio::test]
async fn rules_count_at_registration_too() {
    let rules = &["10.0.0.0/8:8443"];
    assert_eq!(check(rules, "https://inside.example:8443/").await, Ok(()));
    assert_eq!(check(rules, "https://10.0.0.1:8443/").await, Ok(()));
    assert!(check(rules, "https://inside.example/").await.is_err());
    assert!(check(rules, "https://10.0.0.1/").await.is_err());
}

#[tokio::test]
async fn http_is_taken_only_where_it_is_allowed() {
    let names = Arc::new(Names::default().with("public.example", &[&["93.184.215.14"]]));
    let target = TargetUrl::new("http://public.example/").unwrap();
    let strict = Egress {
        allow_http: false,
        ..allowing(&[])
    };
    assert_eq!(
        client(&strict, &names).check_target(&target).await,
        Err(FieldError::new("url", "must be an https URL"))
    );
    assert_eq!(
        client(&allowing(&[]), &names).check_target(&target).await,
        Ok(())
    );
}

#[tokio::test]
async fn credentials_are_refused() {
    for url in [
        "https://user@public.example/",
        "https://user:secret@public.example/",
    ] {
        let error = check(&[], url).await.unwrap_err();
        assert_eq!(error, FieldError::new("url", "must not hold credentials"));
    }
}
