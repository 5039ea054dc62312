//! Files of the core's: from its hosts only, whole, and within their bounds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::config::Outputs;
use forge_dispatch::domain::attempt::ErrorClass;
use forge_dispatch::outputs::{FetchError, Fetcher};
use forge_dispatch::store::FileError;

use super::files::Place;
use crate::egress::tls::Authority;
use crate::egress::{Names, allowing, client};
use crate::harness::receiver::{Received, Receiver, Reply};

const HOST: &str = "inside.example";

/// A core that answers as the test says, and what fetches from it.
struct Core {
    receiver: Receiver,
    place: Place,
    fetcher: Fetcher,
}

impl Core {
    fn start(
        settings: Outputs,
        behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let authority = Authority::new();
        let tls = authority.server(HOST, &["http/1.1"]);
        let receiver = Receiver::start_tls(tls, behaviour);
        let host = format!("{HOST}:{}", receiver.address().port());
        let settings = Outputs {
            core_hosts: vec![host.parse().unwrap()],
            ..settings
        };
        let place = Place::directory(&settings);
        let files = Arc::clone(&place.files);
        let fetcher = Fetcher::new(&settings, Arc::new(authority.client()), files);
        Self {
            receiver,
            place,
            fetcher,
        }
    }

    fn answering(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Outputs::default(), move |_| reply())
    }

    async fn fails(&self) -> FetchError {
        let url = self.receiver.url_at(HOST, "/file?token=s3cret");
        let key = self.place.key("o");
        let error = self.fetcher.fetch(&url, &key).await.unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(self.place.seen(), HashSet::new());
        error
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_taken_as_it_is() {
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let sent = body.clone();
    let core = Core::answering(move || Reply::status(200).body(sent.clone()));
    let key = core.place.key("o");
    let url = core.receiver.url_at(HOST, "/files/a?token=1");
    let kept = core.fetcher.fetch(&url, &key).await.unwrap();
    assert_eq!(kept.size, 100_000);
    assert_eq!(core.place.read(&key, 0, kept.size).await.unwrap(), body);
    let request = &core.receiver.received()[0];
    assert_eq!(
        (&*request.method, &*request.path),
        ("GET", "/files/a?token=1")
    );
    assert_eq!(core.receiver.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_https_to_a_host_of_the_core_is_asked() {
    let core = Core::answering(|| Reply::status(200));
    let port = core.receiver.address().port();
    for (url, reason) in [
        ("no url".to_owned(), "is no URL"),
        (format!("http://{HOST}:{port}/"), "is not https"),
        (format!("https://{HOST}/"), "does not name"),
        (format!("https://127.0.0.1:{port}/"), "does not name"),
        (
            format!("https://{HOST}.evil.example:{port}/"),
            "does not name",
        ),
        (
            format!("https://me:s3cret@{HOST}:{port}/"),
            "holds a user name",
        ),
        (
            format!("https://{HOST}:{port}@evil.example/"),
            "holds a user name",
        ),
    ] {
        let error = core.fetcher.fetch(&url, &core.place.key("o")).await;
        let error = error.unwrap_err();
        assert!(matches!(error, FetchError::Refused(_)), "{url}: {error}");
        assert!(error.to_string().contains(reason), "{url}: {error}");
        assert!(error.is_final() && !error.to_string().contains("s3cret"));
    }
    assert_eq!(core.receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leads_inside_is_not_dialled() {
    let receiver = Receiver::ok();
    let host = format!("{HOST}:{}", receiver.address().port());
    let settings = Outputs {
        core_hosts: vec![host.parse().unwrap()],
        ..Outputs::default()
    };
    let place = Place::directory(&settings);
    let names = Arc::new(Names::default().with(HOST, &[&["127.0.0.1"]]));
    let client = Arc::new(client(&allowing(&[]), &names));
    let fetcher = Fetcher::new(&settings, client, Arc::clone(&place.files));
    let error = fetcher
        .fetch(&format!("https://{host}/"), &place.key("o"))
        .await;
    match error.unwrap_err() {
        FetchError::Request(error) => assert_eq!(error.class, ErrorClass::BlockedAddress),
        error => panic!("{error}"),
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_no_file_is_told() {
    for (status, is_final) in [
        (204, true),
        (206, true),
        (302, true),
        (404, true),
        (429, false),
        (503, false),
    ] {
        let core = Core::answering(move || {
            Reply::status(status).header("location", "https://inside.example/elsewhere")
        });
        let error = core.fails().await;
        assert!(
            matches!(error, FetchError::Status(told) if told == status),
            "{error}"
        );
        assert_eq!(error.is_final(), is_final, "{status}");
        assert_eq!(core.receiver.count(), 1, "no redirect is followed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_not_taken() {
    let settings = || Outputs {
        max_file_bytes: 1_000,
        ..Outputs::default()
    };
    // One says so, the other does not.
    let honest = Core::start(settings(), |_| Reply::status(200).body(vec![0; 1_001]));
    let endless = Core::start(settings(), |_| Reply::status(200).then_never_ends());
    for core in [honest, endless] {
        let error = core.fails().await;
        assert!(
            matches!(error, FetchError::File(FileError::TooLarge { most: 1_000 })),
            "{error}"
        );
        assert!(error.is_final());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_does_not_come_or_not_wholly_is_not_kept() {
    let soon = || Outputs {
        fetch_timeout: Duration::from_millis(300),
        ..Outputs::default()
    };
    let silent = Core::start(soon(), |_| Reply::hang());
    let stalling = Core::start(soon(), |_| Reply::status(200).body("x").then_stalls());
    for core in [silent, stalling] {
        match core.fails().await {
            FetchError::Request(error) => assert_eq!(error.class, ErrorClass::Timeout),
            error => panic!("{error}"),
        }
    }
    let cut = Core::answering(|| Reply::status(200).body("x").then_cuts());
    let short = Core::answering(|| {
        Reply::status(200)
            .header("content-length", "100")
            .body("x")
            .then_cuts()
    });
    for core in [cut, short] {
        let error = core.fails().await;
        assert!(!error.is_final(), "it may be whole next time");
        match error {
            FetchError::Request(error) => assert_eq!(error.class, ErrorClass::Body),
            error => panic!("{error}"),
        }
    }
}
