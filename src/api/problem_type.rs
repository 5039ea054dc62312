//! The closed list of problems (RFC 9457 §3.1.1): what each is called, and what to do about it.

use axum::http::StatusCode;

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemType {
    /// The body is no JSON.
    MalformedBody,
    /// A parameter of the query.
    InvalidParameter,
    /// A cursor that is not ours, or another list's.
    InvalidCursor,
    /// A header.
    InvalidHeader,
    /// The answer would be too large.
    ResponseTooLarge,
    /// The file is too long for one answer.
    RangeRequired,
    /// No key, or none that is valid.
    Unauthorized,
    /// The key lacks a scope.
    InsufficientScope,
    /// The key is restricted to projects.
    RestrictedKey,
    /// A request in clear.
    TlsRequired,
    /// Nothing there.
    NotFound,
    /// Nothing there that this method could be used on.
    MethodNotAllowed,
    /// Nothing of a type that is accepted.
    NotAcceptable,
    /// The request came too slowly.
    RequestTimeout,
    /// The same request made something before.
    AlreadyCreated,
    /// The same request is still being carried out.
    IdempotencyKeyInUse,
    /// The edition stands where its data cannot be changed.
    EditionNotOpen,
    /// The delivery stands where it cannot be replayed.
    NotReplayable,
    /// The replay is done with.
    ReplayDone,
    /// The workspace replays enough.
    TooManyReplays,
    /// Nothing is known of how the edition is to be filled.
    BlueprintUnknown,
    /// The edition stands where no outputs are made of it.
    EditionNotApproved,
    /// Files of this format are made by the core, which is not asked.
    OutputNotMadeHere,
    /// The output has no file.
    OutputNotGenerated,
    /// The cursor is of what was removed.
    CursorExpired,
    /// `If-Match` names another version.
    StaleVersion,
    /// The body is too large.
    PayloadTooLarge,
    /// The body is of another type, or encoded.
    UnsupportedMediaType,
    /// The file has none of the bytes that are asked for.
    RangeNotSatisfiable,
    /// Values that break a rule.
    InvalidValues,
    /// The same `Idempotency-Key`, another request.
    IdempotencyKeyReused,
    /// The key has asked for too much.
    RateLimited,
    /// The key asks for too much at once.
    TooManyConcurrentRequests,
    /// The address has shown too many wrong keys.
    TooManyFailedAuthentications,
    /// Our fault.
    Internal,
    /// A part of ours is away.
    Unavailable,
}

/// What is told of a type.
struct Entry {
    slug: &'static str,
    status: StatusCode,
    title: &'static str,
    detail: &'static str,
    remedy: &'static str,
}

impl ProblemType {
    /// All of them, by status.
    pub const ALL: [Self; 36] = [
        Self::MalformedBody,
        Self::InvalidParameter,
        Self::InvalidCursor,
        Self::InvalidHeader,
        Self::ResponseTooLarge,
        Self::RangeRequired,
        Self::Unauthorized,
        Self::InsufficientScope,
        Self::RestrictedKey,
        Self::TlsRequired,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::AlreadyCreated,
        Self::IdempotencyKeyInUse,
        Self::EditionNotOpen,
        Self::NotReplayable,
        Self::ReplayDone,
        Self::TooManyReplays,
        Self::BlueprintUnknown,
        Self::EditionNotApproved,
        Self::OutputNotMadeHere,
        Self::OutputNotGenerated,
        Self::CursorExpired,
        Self::StaleVersion,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::RangeNotSatisfiable,
        Self::InvalidValues,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::TooManyConcurrentRequests,
        Self::TooManyFailedAuthentications,
        Self::Internal,
        Self::Unavailable,
    ];

    /// The last part of its `type`.
    pub fn slug(self) -> &'static str {
        self.entry().slug
    }

    /// The status of an answer of this type.
    pub fn status(self) -> StatusCode {
        self.entry().status
    }

    /// It in a few words, always the same.
    pub fn title(self) -> &'static str {
        self.entry().title
    }

    /// What is wrong, where there is nothing to say about this request alone.
    pub fn detail(self) -> &'static str {
        self.entry().detail
    }

    /// What a client does about it.
    pub fn remedy(self) -> &'static str {
        self.entry().remedy
    }

    #[expect(clippy::too_many_lines, reason = "a table")]
    fn entry(self) -> Entry {
        let entry = |slug, status, title, detail, remedy| Entry {
            slug,
            status,
            title,
            detail,
            remedy,
        };
        match self {
            Self::MalformedBody => entry(
                "malformed-body",
                StatusCode::BAD_REQUEST,
                "The body is malformed",
                "The body is not what its `Content-Type` says: one JSON document, or one table, in UTF-8.",
                "Send one JSON document or, for rows, one table. `detail` says where it ends to be one.",
            ),
            Self::InvalidParameter => entry(
                "invalid-parameter",
                StatusCode::BAD_REQUEST,
                "A parameter is invalid",
                "A parameter of the query is unknown, given twice, or breaks a rule.",
                "`errors` names each parameter and its rule.",
            ),
            Self::InvalidCursor => entry(
                "invalid-cursor",
                StatusCode::BAD_REQUEST,
                "The cursor is invalid",
                "`after` is not a cursor of this list with these filters.",
                "Take `after` from `next_cursor` of a page of the same list with the same filters, \
                 or begin without it.",
            ),
            Self::InvalidHeader => entry(
                "invalid-header",
                StatusCode::BAD_REQUEST,
                "A header is invalid",
                "A header breaks a rule.",
                "`errors` names the header and its rule.",
            ),
            Self::ResponseTooLarge => entry(
                "response-too-large",
                StatusCode::BAD_REQUEST,
                "The answer would be too large",
                "An answer is at most 10 MB (10,000,000 bytes), and is never cut.",
                "Ask for pages: send `limit`, and go on from `next_cursor` or the header `Link`. \
                 Pages that name one `edition_version` belong together.",
            ),
            Self::RangeRequired => entry(
                "range-required",
                StatusCode::BAD_REQUEST,
                "The file is to be asked for in parts",
                "An answer is at most 10 MB (10,000,000 bytes), and the file is longer.",
                "Send `Range: bytes=0-9999999`, and go on behind what `Content-Range` says until all of \
                 it came; with `If-Range`, so that all parts are of one file.",
            ),
            Self::Unauthorized => entry(
                "unauthorized",
                StatusCode::UNAUTHORIZED,
                "A valid API key is needed",
                "Send `Authorization: Bearer` with an API key that is neither expired nor revoked.",
                "A key is shown once, when it is made. Ask an admin of the workspace for a new one.",
            ),
            Self::InsufficientScope => entry(
                "insufficient-scope",
                StatusCode::FORBIDDEN,
                "The key lacks a scope",
                "This needs a scope that the key has not.",
                "Ask an admin of the workspace for a key with the scope that `detail` names. The \
                 scopes of a key never change.",
            ),
            Self::RestrictedKey => entry(
                "restricted-key",
                StatusCode::FORBIDDEN,
                "The key is restricted to projects",
                "A key that is restricted to projects cannot do this.",
                "Use a key that is not restricted. Keys, the audit log and members belong to the \
                 whole workspace.",
            ),
            Self::TlsRequired => entry(
                "tls-required",
                StatusCode::FORBIDDEN,
                "TLS is required",
                "This request came in clear. Use https.",
                "Use `https`. If a key went over the network in clear, revoke it.",
            ),
            Self::NotFound => entry(
                "not-found",
                StatusCode::NOT_FOUND,
                "Not found",
                "There is nothing of that id that this key can see.",
                "Look the id up in its list. What lies in another workspace, or outside of the \
                 key's projects, is answered exactly as what does not exist.",
            ),
            Self::MethodNotAllowed => entry(
                "method-not-allowed",
                StatusCode::METHOD_NOT_ALLOWED,
                "The method is not allowed",
                "This resource has no such method.",
                "The header `Allow` names the methods that there are.",
            ),
            Self::NotAcceptable => entry(
                "not-acceptable",
                StatusCode::NOT_ACCEPTABLE,
                "It is not there in a type that is accepted",
                "`Accept` allows none of the types that this is there as.",
                "Name one of the types that `detail` lists in `Accept`, or leave `Accept` out for \
                 JSON.",
            ),
            Self::RequestTimeout => entry(
                "request-timeout",
                StatusCode::REQUEST_TIMEOUT,
                "The request came too slowly",
                "The body did not arrive in time.",
                "Send it again, over a better line or in smaller parts.",
            ),
            Self::AlreadyCreated => entry(
                "already-created",
                StatusCode::CONFLICT,
                "Already created",
                "A request with this `Idempotency-Key` and body was carried out before.",
                "`id` is what was made. Its secret is not shown again: where the first answer was \
                 lost, delete it and make another, or rotate its secret.",
            ),
            Self::IdempotencyKeyInUse => entry(
                "idempotency-key-in-use",
                StatusCode::CONFLICT,
                "The same request is still being carried out",
                "An earlier request with this `Idempotency-Key` is not done yet.",
                "Send it again in a moment, with the same key: it is then given the first one's answer.",
            ),
            Self::EditionNotOpen => entry(
                "edition-not-open",
                StatusCode::CONFLICT,
                "The edition takes no changes",
                "Only editions that are `draft` or `changes_requested` can be changed or submitted.",
                "Read the edition's `status`. Whoever reviews it can request changes, which opens it again.",
            ),
            Self::NotReplayable => entry(
                "not-replayable",
                StatusCode::CONFLICT,
                "The delivery cannot be replayed",
                "The delivery, or its subscription, stands where it cannot be replayed.",
                "`reason` says why: `in_flight` (it is being sent at this moment: wait for what comes of \
                 that), `cancelled`, `subscription_disabled` (enable it first), `subscription_deleted`, \
                 `waits_its_turn` (an earlier one of its edition is not done with), or `event_removed`.",
            ),
            Self::ReplayDone => entry(
                "replay-done",
                StatusCode::CONFLICT,
                "The replay is done",
                "All of the replay was sent: there is nothing to cancel.",
                "Read the replay for what came of it.",
            ),
            Self::TooManyReplays => entry(
                "too-many-replays",
                StatusCode::CONFLICT,
                "Too many replays at once",
                "The workspace has 20 replays under way.",
                "Wait until one is done, or cancel one.",
            ),
            Self::BlueprintUnknown => entry(
                "blueprint-unknown",
                StatusCode::CONFLICT,
                "The edition's blueprint is not there",
                "The blueprint of this edition was deleted, or has not been told of yet, and values \
                 cannot be held against it.",
                "Where the edition is new, send the request again in a moment. A blueprint that was \
                 deleted takes no more data.",
            ),
            Self::EditionNotApproved => entry(
                "edition-not-approved",
                StatusCode::CONFLICT,
                "No outputs are made of the edition yet",
                "Outputs are made of editions that are `approved` or `closed`.",
                "Read the edition's `status`, and come again when it is approved.",
            ),
            Self::OutputNotMadeHere => entry(
                "output-not-made-here",
                StatusCode::CONFLICT,
                "The output is not made here",
                "This deployment makes `csv` and `xlsx`, and does not ask Report Forge for other formats.",
                "Generate it in Report Forge, or ask an operator to set `amqp.url` and \
                 `outputs.core_hosts`.",
            ),
            Self::OutputNotGenerated => entry(
                "output-not-generated",
                StatusCode::CONFLICT,
                "The output has no file",
                "There is no file to download.",
                "Read the output: `status` says how far it is, `failure` why it failed. \
                 `download_url` is there once there is a file.",
            ),
            Self::CursorExpired => entry(
                "cursor-expired",
                StatusCode::GONE,
                "The cursor has expired",
                "Some of the events behind this cursor are no longer kept.",
                "Begin again without `after`, with the oldest event that is kept, and read anew what \
                 you keep a copy of: events between were missed. Come back sooner than events are \
                 kept for.",
            ),
            Self::StaleVersion => entry(
                "stale-version",
                StatusCode::PRECONDITION_FAILED,
                "It was changed meanwhile",
                "The version in `If-Match` is not the current one.",
                "Read the resource again and decide anew.",
            ),
            Self::PayloadTooLarge => entry(
                "payload-too-large",
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body is too large",
                "The body of a request is at most 5 MB (5,000,000 bytes).",
                "Send it in parts.",
            ),
            Self::UnsupportedMediaType => entry(
                "unsupported-media-type",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "The body is of a type that is not taken",
                "Send the body as `application/json`, without a `Content-Encoding`.",
                "Send JSON that is not compressed. Rows are taken as `text/csv` and \
                 `text/tab-separated-values` too, in UTF-8.",
            ),
            Self::RangeNotSatisfiable => entry(
                "range-not-satisfiable",
                StatusCode::RANGE_NOT_SATISFIABLE,
                "The range lies outside of the file",
                "The file has none of the bytes that `Range` asks for.",
                "`Content-Range` says how many bytes the file has.",
            ),
            Self::InvalidValues => entry(
                "invalid-values",
                StatusCode::UNPROCESSABLE_ENTITY,
                "Values are invalid",
                "Values in the body break rules.",
                "`errors` names each value by its JSON pointer or, in a table, by its line and column, \
                 and its rule. Nothing was done.",
            ),
            Self::IdempotencyKeyReused => entry(
                "idempotency-key-reused",
                StatusCode::UNPROCESSABLE_ENTITY,
                "The idempotency key was used for another request",
                "This `Idempotency-Key` came with another body within the last 24 hours.",
                "Make a new `Idempotency-Key` for each new request.",
            ),
            Self::RateLimited => entry(
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                "The key's rate limit is reached",
                "The key has made all the requests that its window allows.",
                "Wait for as many seconds as `Retry-After` says. Webhooks tell of changes without \
                 polling.",
            ),
            Self::TooManyConcurrentRequests => entry(
                "too-many-concurrent-requests",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many requests at once",
                "The key has as many requests under way as it may.",
                "Read an answer to its end before the next request. This one did not count.",
            ),
            Self::TooManyFailedAuthentications => entry(
                "too-many-failed-authentications",
                StatusCode::TOO_MANY_REQUESTS,
                "Too many failed authentications",
                "Too many requests from this address showed a key that is not valid.",
                "Mend the key, and wait for as many seconds as `Retry-After` says.",
            ),
            Self::Internal => entry(
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something failed on our side",
                "The request could not be carried out.",
                "Try again. If it lasts, tell an operator the header `X-Request-Id`.",
            ),
            Self::Unavailable => entry(
                "unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available for the moment",
                "A part of the service does not answer. Whether a change was made is not known.",
                "Try again after `Retry-After` seconds, with the same `Idempotency-Key`.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_type_has_a_slug_of_its_own_and_stands_by_its_status() {
        let slugs: BTreeSet<&str> = ProblemType::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), ProblemType::ALL.len());
        for kind in ProblemType::ALL {
            assert!(
                kind.status().is_client_error() || kind.status().is_server_error(),
                "{kind:?}"
            );
            assert!(
                kind.slug()
                    .bytes()
                    .all(|byte| byte == b'-' || byte.is_ascii_lowercase())
            );
        }
    }
}
