"""What schemathesis cannot know of the API, and no schema can say.

Each entry of LET_PASS has its reason. None of them depends on what is drawn: a failure is let pass by
what was refused, and only where that refusal is the right answer to a request that keeps the schema.
"""

import itertools
import json
import os
import re

import schemathesis
from hypothesis import strategies

# The key that all this is asked with. Were it revoked, nothing else would be tried.
OWN_KEY = os.environ["CONTRACT_KEY"]

# Where every subscription leads: a port of this machine at which nobody listens.
NOWHERE = "127.0.0.1:9"

# Bodies that are no JSON.
TABLES = ("text/csv", "text/tab-separated-values")

# What a value names (a parameter, a header, a pointer into the body), what is wrong with it, and why no
# schema says so.
LET_PASS = [
    # JSON Schema counts 5.0 among the integers. What is meant to be whole is written so.
    ("invalid-values", r"/.*", r"invalid type: floating point `\d+\.0`, expected .*"),
    # Only whoever has read a page knows the cursor behind it.
    ("invalid-cursor", None, None),
    # A length in bytes; `maxLength` counts characters.
    ("invalid-parameter", r"edition_id|edition|project|blueprint", r"must be at most \d+ bytes"),
    ("invalid-values", r"/url", r"must be at most \d+ bytes.*"),
    ("invalid-values", r"/project_ids/\d+", r"must be at most \d+ bytes"),
    ("invalid-values", r"/filter/(edition|project)_id", r"must be at most \d+ bytes"),
    # Either of two, which the document says in words; and what is named is looked for.
    ("invalid-values", r"/filter", r"goes without `event_id`|must be given, or `event_id`"),
    ("invalid-values", r"/filter/backfill", r"needs a `subscription_id`"),
    ("invalid-values", r"/filter/subscription_id", r"is another than `subscription_id`"),
    ("invalid-values", r"/event_id|/subscription_id", r"is no (event|subscription) that this key can see"),
    # The clock says what is past.
    ("invalid-values", r"/expires_at", r"must be in the future|must be before the year 10000"),
    # Which secrets there are depends on the format, of the subscription that is there, too.
    ("invalid-values", r"/secret", r".*"),
    # Names are one whatever their capitals, and a list of what is not taken is no pattern to read.
    ("invalid-values", r"/headers", r"must not set `.*`|must name `.*` once"),
    # Whether they go together depends on what is there.
    ("invalid-values", r"/disabled_reason", r"goes with `status` `disabled` only"),
    ("invalid-values", r"/headers", r"must be set anew, or to null, with a `url` of another host.*"),
    # The blueprint says which fields there are, and what each may hold.
    ("invalid-values", r"/(rows/\d+/)?values(/.*)?", r".*"),
    # A row is named once, and one that is appended as none that is there; in bytes, too.
    ("invalid-values", r"/rows/\d+/id", r"must be at most \d+ bytes|names a row that .*|is the id of a row .*"),
    ("invalid-values", r"/blueprint_id", r"must be at most \d+ bytes"),
    # Any text is a text; which of them are tables, with columns that the blueprint knows, is not said.
    ("invalid-values", r"column .*", r".*"),
    # Whether an edition is complete depends on what it holds.
    ("invalid-values", r"/sections/.*", r"is required"),
    # Twenty are sent at most, with those that are there.
    ("invalid-values", r"/headers", r"must be at most \d+"),
]

_numbers = itertools.count()


@schemathesis.serializer(*TABLES)
def table(context, value):
    """A table is sent as the text that was drawn."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "replace")


# What a path and a query may hold without encoding.
_rest = strategies.text("abcxyzABC019-._~!$&'()*+,;=:@/", max_size=40)
schemathesis.openapi.format(
    "uri",
    strategies.builds(
        lambda scheme, path, query: f"{scheme}://{NOWHERE}/{path.lstrip('/')}" + (f"?{query}" if query else ""),
        strategies.sampled_from(["https", "http"]),
        _rest,
        _rest,
    ),
)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keeps a request from what it must not do, and mends what was not drawn as the schema says."""
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("url"), str):
        # The host alone, so that whatever is wrong with the rest stays wrong.
        body["url"] = _nowhere(body["url"])
    secret = body.get("secret") if isinstance(body, dict) else None
    if isinstance(secret, str) and len(secret) % 2 and _is_positive(case):
        # Half of them are ones that every format takes: what else is in the body gets its turn.
        body["secret"] = "whsec_" + "A" * 32
    if case.path_parameters.get("id") == OWN_KEY and case.method.upper() == "DELETE":
        case.path_parameters["id"] = "key_01h455vb4pex5vsknk084sn02q"
    for name, value in case.query.items():
        # A whole number is one in the text of a query, too.
        if isinstance(value, float) and value.is_integer():
            case.query[name] = int(value)
    wait = str(case.query.get("wait"))
    if re.fullmatch(r"[0-9]+", wait) and 1 < int(wait) <= 30:
        # An answer that comes as late as it was asked to is none that took too long.
        case.query["wait"] = 1
    if case.headers.get("If-Match") == "0" and _is_positive(case):
        # The phase `coverage` draws this for any pattern with a quote in it, valid or not.
        case.headers["If-Match"] = '"3.json"'
    key = case.headers.get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) <= 255:
        # Two requests with one key are one request.
        number = f"-{next(_numbers)}"
        case.headers["Idempotency-Key"] = key[: 255 - len(number)] + number


def _is_positive(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def _nowhere(url):
    """The same with another host, where whoever is lenient finds one. Credentials are refused anyway."""
    return re.sub(r"^\s*(https?):[/\\]*[^/?#\\@]+(?=[/?#\\]|$)", rf"\1://{NOWHERE}", url, flags=re.IGNORECASE)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Whether it is a failure indeed."""
    if "use_after_free" in failure.checks and case.path.endswith("/v1/api-keys/{id}"):
        # A key that is revoked stays in the list, and can be shown: that is what its 204 promises.
        return False
    if "positive_data_acceptance" not in failure.checks or response.status_code not in (400, 422):
        return True
    problem = json.loads(response.content)
    kind = problem["type"].removeprefix("/problems/")
    if kind == "malformed-body":
        # A schema cannot say of a text that it is a table.
        return case.media_type not in TABLES
    faults = [(_place(fault), fault["detail"]) for fault in problem.get("errors", [])] or [("", "")]
    return not all(_is_let_pass(kind, place, detail) for place, detail in faults)


def _place(fault):
    if "column" in fault:
        return f"column {fault['column']}"
    return next(fault[name] for name in ("pointer", "parameter", "header") if name in fault)


def _is_let_pass(kind, place, detail):
    return any(
        kind == let_kind
        and (let_place is None or re.fullmatch(let_place, place))
        and (let_detail is None or re.fullmatch(let_detail, detail, re.DOTALL))
        for let_kind, let_place, let_detail in LET_PASS
    )
