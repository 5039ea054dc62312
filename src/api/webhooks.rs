//! The four events that Report Forge documents, and the three that tell of deliveries themselves, as the
//! `webhooks` of the OpenAPI document: what receivers get (product.md §3, §4).

use serde_json::{Value, json};
use utoipa::openapi::PathItem;
use utoipa::openapi::path::{Paths, PathsBuilder};

/// An event: what its data holds at least, and what it looks like.
struct Event {
    name: &'static str,
    summary: &'static str,
    data: Value,
    example: Value,
}

/// All of them.
pub fn describe() -> Paths {
    let mut paths = PathsBuilder::new();
    for event in events().into_iter().chain(operational()) {
        // Ours is well formed: a test finds each in the document.
        if let Ok(item) = serde_json::from_value::<PathItem>(event.item()) {
            paths = paths.path(event.name, item);
        }
    }
    paths.build()
}

fn events() -> [Event; 4] {
    let id = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    let user = json!({
        "type": "object",
        "required": ["id", "name"],
        "properties": {"id": id(), "name": {"type": "string"}},
    });
    let at = "2026-05-01T09:00:00Z";
    [
        Event {
            name: "edition.submitted",
            summary: "An edition was submitted",
            data: json!({
                "edition_id": id(), "blueprint_id": id(), "project_id": id(), "timestamp": time(),
            }),
            example: json!({
                "edition_id": "ed_123", "blueprint_id": "bp_7", "project_id": "pr_1", "timestamp": at,
            }),
        },
        Event {
            name: "edition.approved",
            summary: "An edition was approved",
            data: json!({"edition_id": id(), "approved_by": user, "timestamp": time()}),
            example: json!({
                "edition_id": "ed_123",
                "approved_by": {"id": "us_4", "name": "Ada Lovelace"},
                "timestamp": at,
            }),
        },
        Event {
            name: "edition.changes_requested",
            summary: "Changes to an edition were requested",
            data: json!({
                "edition_id": id(),
                "comment_count": {"type": "integer", "minimum": 0},
                "timestamp": time(),
            }),
            example: json!({"edition_id": "ed_123", "comment_count": 2, "timestamp": at}),
        },
        Event {
            name: "output.generated",
            summary: "An output is ready",
            data: json!({
                "edition_id": id(),
                "output_id": id(),
                "format": {"type": "string"},
                "download_url": {"type": "string", "format": "uri"},
            }),
            example: json!({
                "edition_id": "ed_123",
                "output_id": "out_9",
                "format": "xlsx",
                "download_url": "https://reports.example.com/report-forge/v1/outputs/out_9/download",
            }),
        },
    ]
}

/// Those that only subscriptions get that name them.
fn operational() -> [Event; 3] {
    let text = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    let at = "2026-05-01T09:00:00.000Z";
    let subscription = "sub_01h455vb4pex5vsknk084sn02q";
    [
        Event {
            name: "delivery.failed",
            summary: "A delivery was given up (for subscriptions that name it)",
            data: json!({
                "delivery_id": text(), "event_id": text(), "event_type": text(),
                "subscription_id": text(), "attempts": {"type": "integer", "minimum": 1},
                "status": {"type": ["integer", "null"]}, "error": {"type": ["string", "null"]},
                "timestamp": time(),
            }),
            example: json!({
                "delivery_id": "dlv_01h455vb4pex5vsknk084sn02q",
                "event_id": "evt_01h455vb4pex5vsknk084sn02q",
                "event_type": "edition.submitted", "subscription_id": subscription,
                "host": "erp.example.com", "attempts": 10, "status": 500, "error": "http_status",
                "timestamp": at,
            }),
        },
        Event {
            name: "subscription.circuit_opened",
            summary: "A receiver is left alone for a while (for subscriptions that name it)",
            data: json!({
                "subscription_id": text(), "until": time(), "timestamp": time(),
                "failures_in_row": {"type": "integer", "minimum": 0},
            }),
            example: json!({
                "subscription_id": subscription, "host": "erp.example.com", "failures_in_row": 10,
                "until": "2026-05-01T09:00:30.000Z", "timestamp": at,
            }),
        },
        Event {
            name: "subscription.disabled",
            summary: "A subscription was disabled (for subscriptions that name it)",
            data: json!({"subscription_id": text(), "reason": text(), "timestamp": time()}),
            example: json!({
                "subscription_id": subscription, "host": "erp.example.com",
                "reason": "the receiver answered 410 Gone", "timestamp": at,
            }),
        },
    ]
}

impl Event {
    fn item(&self) -> Value {
        let data = self.data.as_object();
        let required: Vec<&String> = data.iter().flat_map(|data| data.keys()).collect();
        let schema = json!({
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": {"type": "string", "enum": [self.name]},
                "timestamp": {"type": "string", "format": "date-time"},
                "data": {"type": "object", "required": required, "properties": self.data},
            },
        });
        let example = json!({
            "type": self.name, "timestamp": "2026-05-01T09:00:00.000Z", "data": self.example,
        });
        json!({
            "post": {
                "operationId": format!("on_{}", self.name.replace('.', "_")),
                "summary": self.summary,
                "description": "The `standard` body; `data` may hold more members than these. \
                    Verify the signature with a Standard Webhooks library, dedupe on `webhook-id`, \
                    and answer 2xx within 10 s.",
                "security": [],
                "parameters": [
                    header("webhook-id", "The event's id: the same over retries and replays."),
                    header("webhook-timestamp", "When this attempt was made, in unix seconds."),
                    header(
                        "webhook-signature",
                        "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`; one entry \
                         for each live secret, separated by spaces (Standard Webhooks 1.0).",
                    ),
                ],
                "requestBody": {
                    "required": true,
                    "content": {"application/json": {"schema": schema, "example": example}},
                },
                "responses": {
                    "2XX": {"description": "It was taken. The answer's body is not used."},
                    "410": {"description": "Never again: the subscription is disabled."},
                    "429": {"description": "Later: `Retry-After` is honoured."},
                    "503": {"description": "Later: `Retry-After` is honoured."},
                    "default": {"description": "It is tried again, as the subscription's schedule says."},
                },
            },
        })
    }
}

fn header(name: &str, description: &str) -> Value {
    json!({
        "name": name,
        "in": "header",
        "required": true,
        "description": description,
        "schema": {"type": "string"},
    })
}
