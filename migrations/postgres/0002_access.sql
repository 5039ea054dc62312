-- Who may ask for what, and who did what.
--
-- (What 0001 says of `event_key` holds no longer: a key is 4 bytes of order and 12 of the hash. A
-- migration that was applied once is not touched, not even in its comments.)

-- Keys of the API. A key is never deleted: what the audit log names can be looked up for good.
create table api_key (
    id uuid not null,
    workspace text collate "C" not null,
    name text not null,
    -- sha256 of the key's text, which is kept nowhere.
    digest bytea not null,
    scopes text[] not null,
    -- Null is the whole workspace.
    project_ids text[],
    -- Its own limits; null is the deployment's.
    per_minute bigint,
    per_hour bigint,
    concurrent bigint,
    created_by text not null,
    created_at timestamptz(3) not null default now(),
    expires_at timestamptz(3),
    revoked_at timestamptz(3),
    last_used_at timestamptz(3),
    constraint api_key_pk primary key (id),
    constraint api_key_digest check (octet_length(digest) = 32)
);

create index api_key_of_workspace on api_key (workspace, id);

-- What each key has asked for in the minute and the hour of its own, over all replicas. Written by
-- every request, so it is kept out of the log: a crash of the database forgets the counts, and a key
-- may then ask anew. It has a row for each key that was ever used, and no more.
create unlogged table api_key_usage (
    key_id uuid not null,
    minute_opened_at timestamptz not null,
    minute_count bigint not null,
    hour_opened_at timestamptz not null,
    hour_count bigint not null,
    -- Whether the last request was let through: an upsert can answer with what it wrote only.
    allowed boolean not null,
    constraint api_key_usage_pk primary key (key_id)
) with (
    -- Room beside each row for its next versions.
    fillfactor = 50
);

-- Administrative acts and uses of keys: append-only.
create table audit_log (
    workspace text collate "C" not null,
    id uuid not null,
    -- The time that is in the id, for those who look with SQL. Searches by time go by the id.
    at timestamptz(3) not null,
    actor text collate "C" not null,
    action text not null,
    object text,
    address text,
    request_id text,
    -- Of a use: how a key was used.
    method text,
    route text,
    status integer,
    -- Of an act: JSON, without secrets.
    before text,
    after text,
    constraint audit_log_pk primary key (workspace, id),
    constraint audit_log_request check (
        (method is null) = (route is null) and (method is null) = (status is null)
    )
);

-- What one key did is looked for among the uses of all.
create index audit_log_of_actor on audit_log (workspace, actor, id);
