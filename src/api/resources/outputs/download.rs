//! `GET /v1/outputs/{id}/download`

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::file_name::attachment;
use super::part::Part;
use crate::api::auth::Caller;
use crate::api::auth::caller::ReadOutputs;
use crate::api::etag::{Known, Tag};
use crate::api::path::Id;
use crate::api::problem_type::ProblemType;
use crate::api::resources::fields::{CorePath, KnownHeader};
use crate::api::{Api, Problem, Result};
use crate::domain::file::FileKey;
use crate::domain::ids::OutputId;
use crate::domain::output::{Output, OutputFile, OutputStatus};
use crate::domain::reach::Reach;
use crate::store::{FileError, FileStream};

/// How often the output is looked up again whose file went away in between: it was made anew.
const LOOKS: usize = 3;

/// The route's.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(download))
}

/// Which part of a file.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers that are read by their names")]
struct RangeHeaders {
    /// One range of bytes (RFC 9110 §14.1.2); needed for a file over 10 MB. A longer one is shortened to
    /// 10 MB. Several ranges are as good as none.
    #[param(rename = "Range", example = "bytes=0-9999999", value_type = String, required = false)]
    range: Option<String>,
    /// The `ETag` that the range is meant for: all of the file, if it is another by now.
    #[param(rename = "If-Range", value_type = String, required = false)]
    if_range: Option<String>,
}

/// Download an output
///
/// Its file, as it is; or a part of it, by `Range`. The `ETag` is the SHA-256 of the whole file.
#[utoipa::path(
    get, path = "/outputs/{id}/download", operation_id = "downloadOutput", tag = "Outputs",
    params(CorePath, RangeHeaders, KnownHeader),
    responses(
        (status = 200, description = "The file.", content(
            (Vec<u8> = "text/csv"),
            (Vec<u8> = "application/zip"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
            (Vec<u8> = "application/pdf"),
            (Vec<u8> = "application/json"),
            (Vec<u8> = "application/octet-stream"),
        ), headers(
            ("ETag" = String, description = "The SHA-256 of the file."),
            ("Accept-Ranges" = String, description = "`bytes`."),
            ("Content-Disposition" = String, description = "`attachment`, with a name (RFC 6266)."),
        )),
        (status = 206, description = "The part of it that `Content-Range` says.", content(
            (Vec<u8> = "text/csv"),
            (Vec<u8> = "application/zip"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            (Vec<u8> = "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
            (Vec<u8> = "application/pdf"),
            (Vec<u8> = "application/json"),
            (Vec<u8> = "application/octet-stream"),
        ), headers(
            ("ETag" = String, description = "The SHA-256 of the file."),
            ("Content-Range" = String, description = "Which bytes, of how many."),
            ("Content-Disposition" = String, description = "`attachment`, with a name (RFC 6266)."),
        )),
        (status = 304, description = "It is as `If-None-Match` says."),
    ),
    security(("api_key" = ["read:outputs"])),
)]
async fn download(
    State(api): State<Api>,
    caller: Caller<ReadOutputs>,
    Id(id): Id<OutputId>,
    method: Method,
    headers: HeaderMap,
    known: Known,
) -> Result<Response> {
    let reach = caller.reach();
    for _ in 0..LOOKS {
        let found = Found::look_up(&api, &reach, &id).await?;
        let tag = Tag::of_content(&found.file.sha256);
        if let Some(spared) = known.spared(&tag) {
            return Ok(spared);
        }
        // A range says nothing of a request for the head alone (RFC 9110 §14.2).
        if method == Method::HEAD {
            return Ok(tag.on(found.respond(&Part::Whole, Body::empty())));
        }
        let part = Part::asked(&headers, &tag, found.file.size)?;
        if let Some(stream) = found.read(&api, &part).await? {
            return Ok(tag.on(found.respond(&part, Body::from_stream(stream))));
        }
    }
    tracing::error!(output = %id, "the file of an output is not where it is said to be");
    Err(Problem::unavailable())
}

/// A file that there is.
struct Found {
    output: Output,
    key: FileKey,
    file: OutputFile,
    /// What its edition is called.
    edition: String,
}

impl Found {
    async fn look_up(api: &Api, reach: &Reach, id: &OutputId) -> Result<Self> {
        let found = api.store().output(reach, id).await?;
        let found = found.ok_or_else(Problem::not_found)?;
        let (Some(key), Some(file)) = (found.kept, found.output.file.clone()) else {
            return Err(no_file(&found.output));
        };
        let edition = api.store().edition(reach, &found.output.edition).await?;
        let edition = edition.ok_or_else(Problem::not_found)?.edition.name;
        Ok(Self {
            output: found.output,
            key,
            file,
            edition,
        })
    }

    /// The bytes; `None` where the file is gone.
    async fn read(&self, api: &Api, part: &Part) -> Result<Option<FileStream>> {
        let outputs = api.outputs().ok_or_else(Problem::unavailable)?;
        let range = part.range(self.file.size);
        match outputs.files.read(&self.key, range).await {
            Ok(stream) => Ok(Some(stream)),
            Err(FileError::Missing) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "where files are kept does not answer");
                Err(Problem::unavailable())
            }
        }
    }

    fn respond(&self, part: &Part, body: Body) -> Response {
        let size = self.file.size;
        let bytes = part.range(size);
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static(self.key.media_type());
        let name = attachment(&self.output.name, &self.edition, self.key.extension());
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CONTENT_LENGTH, (bytes.end - bytes.start).into());
        headers.insert(CONTENT_DISPOSITION, name);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Part::Bytes(bytes) = part {
            let place = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
            if let Ok(place) = HeaderValue::try_from(place) {
                headers.insert(CONTENT_RANGE, place);
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}

/// Why there is none.
fn no_file(output: &Output) -> Problem {
    let detail = match output.status {
        OutputStatus::NotGenerated => "It was not asked for: generate it first.",
        OutputStatus::Queued | OutputStatus::Generating => "It is being made: come again.",
        OutputStatus::Failed => "It failed: `failure` of the output says why.",
        OutputStatus::Generated => "Its file is with Report Forge, and is not kept here.",
    };
    Problem::new(ProblemType::OutputNotGenerated).detail(detail)
}
