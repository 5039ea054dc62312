//! How many requests of a key are under way, in this process (product.md §5).

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};

use crate::domain::ids::ApiKeyId;

/// The requests under way, by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots(Arc<Mutex<HashMap<ApiKeyId, u32>>>);

impl Slots {
    /// A place for one more request of this key, if it has fewer than `limit` under way.
    pub(super) fn take(&self, key: ApiKeyId, limit: u32) -> Option<Slot> {
        // A poisoned table is still one: nothing is half written under this lock.
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Slot(Arc::new(Place {
            slots: self.clone(),
            key,
        })))
    }
}

/// A place, free again when the last of its clones is dropped: work that goes on without its request
/// holds one too.
#[derive(Clone, Debug)]
pub(in crate::api) struct Slot(#[expect(dead_code, reason = "it is what it holds")] Arc<Place>);

#[derive(Debug)]
struct Place {
    slots: Slots,
    key: ApiKeyId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

impl Slot {
    /// Holds the place until the last byte of this answer was taken, or nobody wants it any more.
    pub(super) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Held { body, _slot: self }))
    }
}

/// A body that holds a place.
struct Held {
    body: Body,
    _slot: Slot,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use http_body_util::BodyExt;

    use super::*;
    use crate::domain::ids::new_id;

    #[tokio::test]
    async fn a_place_is_free_again_when_the_answer_was_read_or_dropped() {
        let slots = Slots::default();
        let key = new_id(DateTime::UNIX_EPOCH, [1; 10]);
        let other = new_id(DateTime::UNIX_EPOCH, [2; 10]);
        let first = slots.take(key, 2).unwrap();
        let second = slots.take(key, 2).unwrap();
        assert!(slots.take(key, 2).is_none());
        assert!(slots.take(other, 2).is_some());

        let answer = first.until_sent(Response::new(Body::from("text")));
        assert!(slots.take(key, 2).is_none(), "nothing was read yet");
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "text"
        );
        assert!(slots.take(key, 2).is_some());
        drop(second.until_sent(Response::new(Body::from("text"))));
        assert!(slots.0.lock().unwrap().is_empty());
    }
}
