-- What subscribing over HTTP needs: calls that may be repeated, and headers of an admin's own.

-- Calls that created something, by the key that the client gave them: what is created by one is not
-- created again when the client, who did not get the answer, asks again. Kept for a day.
create table idempotency_key (
    workspace text collate "C" not null,
    -- The API key that asked.
    caller uuid not null,
    route text collate "C" not null,
    key text collate "C" not null,
    -- sha256 of what was asked for, so that the same key with something else is told.
    fingerprint bytea not null,
    -- The id of what was created. Nothing else is kept of the answer: it held a secret.
    object text not null,
    created_at timestamptz(3) not null default now(),
    constraint idempotency_key_pk primary key (caller, route, key),
    constraint idempotency_key_fingerprint check (octet_length(fingerprint) = 32)
);

create index idempotency_key_by_age on idempotency_key (created_at);

-- Sealed under the master key, for this row; null where there are none.
alter table subscription add column headers bytea;
