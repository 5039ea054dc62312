//! Ids: ours are TypeIDs (`evt_`, `sub_`, `dlv_` + base32 of a UUIDv7, 16 bytes in the database);
//! those of the Report Forge core are opaque strings of its own.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use type_safe_id::{StaticType, TypeSafeId};
use uuid::Uuid;

/// The longest opaque id that we take from the core, in bytes.
pub const MAX_OPAQUE_ID_BYTES: usize = 255;

macro_rules! typed_id {
    ($(#[$doc:meta])* $id:ident, $tag:ident, $prefix:literal) => {
        #[doc = concat!("The `", $prefix, "_` prefix.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $tag;

        impl StaticType for $tag {
            const TYPE: &'static str = $prefix;
        }

        $(#[$doc])*
        pub type $id = TypeSafeId<$tag>;
    };
}

typed_id!(
    /// One accepted event. It is also the `webhook-id` that receivers dedupe on.
    EventId, EventTag, "evt"
);
typed_id!(
    /// One webhook subscription.
    SubscriptionId, SubscriptionTag, "sub"
);
typed_id!(
    /// One event on its way to one subscription.
    DeliveryId, DeliveryTag, "dlv"
);
typed_id!(
    /// One replay of many deliveries.
    ReplayId, ReplayTag, "rpl"
);
typed_id!(
    /// One signing secret of a subscription.
    SecretId, SecretTag, "sec"
);
typed_id!(
    /// One run of one process: the owner of leases. A restarted process is another owner.
    OwnerId, OwnerTag, "own"
);
typed_id!(
    /// One API key: the public part of its text.
    ApiKeyId, ApiKeyTag, "key"
);
typed_id!(
    /// One entry of the audit log.
    AuditId, AuditTag, "aud"
);
typed_id!(
    /// One request to the API, in its answer and in the logs.
    RequestId, RequestTag, "req"
);
typed_id!(
    /// One file of an output, each time it is made.
    FileId, FileTag, "fil"
);

/// A new UUIDv7 (RFC 9562) from an instant and ten random bytes, both given.
pub fn new_id<T: StaticType>(now: DateTime<Utc>, random: [u8; 10]) -> TypeSafeId<T> {
    let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    let uuid = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    TypeSafeId::from_uuid(uuid)
}

/// When an id of ours was made, read off its UUIDv7.
pub fn created_at(id: Uuid) -> DateTime<Utc> {
    let bytes = id.as_u128() >> 80;
    let millis = i64::try_from(bytes).unwrap_or(0);
    DateTime::from_timestamp_millis(millis).unwrap_or_default()
}

/// A bound for ids by time: what was made before `time` has a smaller id, what was made at `time`
/// or later a greater one. Ids know whole milliseconds.
pub fn first_at(time: DateTime<Utc>) -> Uuid {
    let millis = time.timestamp_millis();
    let begun = i64::from(!time.timestamp_subsec_nanos().is_multiple_of(1_000_000));
    match u64::try_from(millis.saturating_add(begun)) {
        Ok(millis) if millis < 1 << 48 => Uuid::from_u128(u128::from(millis) << 80),
        Ok(_) => Uuid::max(),
        Err(_) => Uuid::nil(),
    }
}

/// Why a string is no opaque id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueIdError {
    /// The string is empty.
    #[error("must not be empty")]
    Empty,
    /// The string is longer than [`MAX_OPAQUE_ID_BYTES`].
    #[error("must be at most {MAX_OPAQUE_ID_BYTES} bytes")]
    TooLong,
    /// The string holds a control character (NUL among them).
    #[error("must not hold control characters")]
    ControlCharacter,
}

/// Checks the rules that every opaque id keeps.
fn check_opaque(text: &str) -> Result<(), OpaqueIdError> {
    if text.is_empty() {
        return Err(OpaqueIdError::Empty);
    }
    if text.len() > MAX_OPAQUE_ID_BYTES {
        return Err(OpaqueIdError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(OpaqueIdError::ControlCharacter);
    }
    Ok(())
}

macro_rules! opaque_id {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $id(Arc<str>);

        impl $id {
            /// Takes the core's string as it is, if it keeps the rules of an id.
            pub fn new(text: &str) -> Result<Self, OpaqueIdError> {
                check_opaque(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The string itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The string itself, shared and not copied.
            pub fn to_shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $id {
            type Error = OpaqueIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(&text)
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.as_str().to_owned()
            }
        }

        impl std::str::FromStr for $id {
            type Err = OpaqueIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
    };
}

opaque_id!(
    /// A tenant. All tenant data is read and written through one of these.
    WorkspaceId
);
opaque_id!(
    /// A project of a workspace.
    ProjectId
);
opaque_id!(
    /// A report structure of a project.
    BlueprintId
);
opaque_id!(
    /// An edition of a blueprint.
    EditionId
);
opaque_id!(
    /// A row of a repeating section of an edition.
    RowId
);
opaque_id!(
    /// An output of an edition.
    OutputId
);
opaque_id!(
    /// A person who uses Report Forge.
    UserId
);

macro_rules! made_here {
    ($id:ident, $tag:ident, $prefix:literal) => {
        #[doc = concat!("The `", $prefix, "_` prefix.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $tag;

        impl StaticType for $tag {
            const TYPE: &'static str = $prefix;
        }

        impl $id {
            #[doc = concat!("One of ours (`", $prefix, "_…`), which the core adopts.")]
            pub fn ours(now: DateTime<Utc>, random: [u8; 10]) -> Self {
                Self(Arc::from(new_id::<$tag>(now, random).to_string()))
            }
        }
    };
}

made_here!(EditionId, EditionTag, "ed");
made_here!(OutputId, OutputTag, "out");
made_here!(RowId, RowTag, "row");

impl Default for WorkspaceId {
    /// The workspace of events and commands that name none (product.md §3).
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_its_prefix_and_its_time() {
        let now = DateTime::from_timestamp_millis(1_777_626_000_123).unwrap();
        let id: EventId = new_id(now, [7; 10]);
        assert!(id.to_string().starts_with("evt_"));
        assert_eq!(id.to_string().parse::<EventId>().unwrap(), id);
        assert_eq!(created_at(id.uuid()), now);
        assert!(
            !id.to_string().contains('.'),
            "a dot would make the signed string ambiguous"
        );
    }

    #[test]
    fn a_bound_by_time_lies_between_what_was_made_before_and_after() {
        let at =
            |micros: i64| DateTime::from_timestamp_micros(1_777_000_000_000_000 + micros).unwrap();
        let made = |micros: i64, byte| new_id::<AuditTag>(at(micros), [byte; 10]).uuid();
        assert!(made(-1_000, 255) < first_at(at(0)) && first_at(at(0)) < made(0, 0));
        assert!(made(0, 255) < first_at(at(1)) && first_at(at(1)) < made(1_000, 0));
        assert!(first_at(DateTime::<Utc>::MAX_UTC) > made(0, 255));
        assert!(first_at(DateTime::<Utc>::MIN_UTC) < made(0, 0));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let id: EventId = new_id(DateTime::UNIX_EPOCH, [1; 10]);
        assert!(id.to_string().parse::<SubscriptionId>().is_err());
    }

    #[test]
    fn an_id_that_is_made_here_is_one_of_the_cores_too() {
        let id = EditionId::ours(DateTime::UNIX_EPOCH, [1; 10]);
        assert!(id.as_str().starts_with("ed_"));
        assert_eq!(EditionId::new(id.as_str()), Ok(id));
        assert!(
            RowId::ours(DateTime::UNIX_EPOCH, [1; 10])
                .as_str()
                .starts_with("row_")
        );
    }

    #[test]
    fn an_opaque_id_is_bounded_and_printable() {
        assert_eq!(ProjectId::new(""), Err(OpaqueIdError::Empty));
        assert_eq!(ProjectId::new("a\0b"), Err(OpaqueIdError::ControlCharacter));
        assert_eq!(
            ProjectId::new(&"x".repeat(256)),
            Err(OpaqueIdError::TooLong)
        );
        assert_eq!(ProjectId::new("pr_1").unwrap().as_str(), "pr_1");
    }
}
